"""Captions of one video that say the same become one event."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from distime.annotate.records import Caption, EventText, Location

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def merge(
    video: str, said: Iterable[tuple[str, Caption]], same_words: float
) -> tuple[EventText, ...]:
    """Return the events of a video.

    Args:
        video: its name.
        said: captioners with what they say.
        same_words: captions are one event if the words that both have are at least this part of
            the words that either has, case and punctuation aside (Jaccard).

    Returns:
        one event for each caption that is not a duplicate, in order, in the words said first.
    """
    groups: list[list[tuple[str, Caption]]] = []
    words_of: list[frozenset[str]] = []
    for captioner, caption in said:
        words = frozenset(_WORD.findall(caption.text.casefold()))
        for group, known in zip(groups, words_of, strict=True):
            if words == known or len(words & known) >= same_words * len(words | known) > 0:
                group.append((captioner, caption))
                break
        else:
            groups.append([(captioner, caption)])
            words_of.append(words)
    texts = [group[0][1].text for group in groups]
    digest = hashlib.sha256(json.dumps([video, texts]).encode()).hexdigest()[:12]
    return tuple(_event(f"v{digest}-{number}", group) for number, group in enumerate(groups))


def _event(id_: str, group: list[tuple[str, Caption]]) -> EventText:
    text = group[0][1].text
    locations: dict[str, Location] = {}
    for captioner, caption in group:
        if caption.location is not None:
            locations.setdefault(captioner, caption.location)
    return EventText(
        id_,
        text,
        sources=tuple(dict.fromkeys(captioner for captioner, _ in group)),
        merged=tuple(dict.fromkeys(one.text for _, one in group[1:] if one.text != text)),
        locations=locations,
    )
