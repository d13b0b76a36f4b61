"""What one annotation line may say (docs/DATA.md), and the item that it becomes.

Times in annotation files are seconds, and stay seconds here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distime.data.lines import JsonlIndex
from distime.data.meta import DataSource
from distime.data.problems import (
    ERROR,
    WARNING,
    AnnotationError,
    Finding,
    is_number,
    place_of,
    show,
)
from distime.model.tokens import FRAME_TIME_REF, IMG_CONTEXT, TIME_STAMP
from distime.processing.prompt import ROLES, Media, PromptError, Turn, place_media


@dataclasses.dataclass(frozen=True)
class Item:
    """One training item.

    Attributes:
        turns: the conversation, media tags still in it.
        video: the video file, or None.
        images: the image files, in order of their tags.
        targets: (start, end) in seconds for each ``<TIME_STAMP>`` of all turns, in order.
        place: ``file:line``, to name the item in messages.
    """

    turns: tuple[Turn, ...]
    video: Path | None = None
    images: tuple[Path, ...] = ()
    targets: tuple[tuple[float, float], ...] = ()
    place: str = ""


def parse_item(record: Any, source: DataSource, line: int) -> Item:
    """Return the item of one annotation line.

    Args:
        record: the line's JSON value, see `JsonlIndex.record`.
        source: where it comes from.
        line: its line number in ``source.annotation``.

    Raises:
        AnnotationError: the record is no valid item. Whether media files exist is not looked at.
    """
    place = place_of(source.annotation, line)
    for severity, message in check_record(record):
        if severity == ERROR:
            raise AnnotationError(f"{place}: {message}")
    times = [float(value) for value in record.get("tgt") or []]
    video, images = _media_of(record)
    return Item(
        turns=tuple(Turn.of(turn) for turn in record["conversations"]),
        video=source.root / video if video else None,
        images=tuple(source.root / image for image in images),
        targets=tuple(zip(times[::2], times[1::2], strict=True)),
        place=place,
    )


def read_item(index: JsonlIndex, number: int, source: DataSource) -> Item:
    """Return item ``number`` of a source's jsonl file, see `parse_item`."""
    return parse_item(index.record(number), source, index.line_number(number))


def clamp_targets(
    targets: Sequence[tuple[float, float]], duration: float
) -> tuple[list[tuple[float, float]], int]:
    """Return intervals (seconds) cut to [0, duration], and how many of them were changed."""
    clamped = [(min(start, duration), min(end, duration)) for start, end in targets]
    return clamped, sum(old != new for old, new in zip(map(tuple, targets), clamped, strict=True))


def check_record(record: Any) -> Iterator[Finding]:
    """Yield everything that is wrong with an annotation line, whatever the files it names."""
    if not isinstance(record, dict):
        kind = type(record).__name__
        yield ERROR, f"an item must be a JSON object, this is a {kind}: write {{...}}"
        return
    if "clip" in record:
        yield WARNING, '"clip" is ignored: cut the video file and shift "tgt" instead'
    media_findings = list(_check_media(record))
    turn_findings = list(_check_turns(record.get("conversations")))
    yield from media_findings
    yield from turn_findings
    if any(severity == ERROR for severity, _ in media_findings + turn_findings):
        return
    turns = [Turn.of(turn) for turn in record["conversations"]]
    for token in (IMG_CONTEXT, FRAME_TIME_REF):
        if any(token in turn.text for turn in turns):
            yield ERROR, f"{token} is written by the processor: remove it from the text"
    video, images = _media_of(record)
    try:
        place_media(turns, Media(1, num_frames=int(bool(video)), image_tiles=(1,) * len(images)))
    except PromptError as error:
        yield ERROR, str(error)
    yield from _check_times(record.get("tgt"), turns, has_video=bool(video))


def _media_of(record: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    images = record.get("image")
    if images is None:
        images = []
    return record.get("video"), [images] if isinstance(images, str) else images


def _check_media(record: Mapping[str, Any]) -> Iterator[Finding]:
    video, images = _media_of(record)
    if video is not None and not (isinstance(video, str) and video):
        yield ERROR, f'"video" is {show(video)}: give one path'
    if not isinstance(images, list) or not all(isinstance(i, str) and i for i in images):
        yield ERROR, f'"image" is {show(images)}: give a path or a list of paths'
        return
    if video and images:
        yield ERROR, 'an item has a "video" or an "image", not both: make two items'
    for path in [video, *images]:
        if isinstance(path, str) and not Path(path).is_absolute():
            parts = Path(os.path.normpath(path)).parts
            if parts and parts[0] == os.pardir:
                yield (
                    ERROR,
                    f'"{path}" leaves the root folder: write an absolute path or set "root" higher',
                )


def _check_turns(conversations: Any) -> Iterator[Finding]:
    if not isinstance(conversations, list) or not conversations:
        example = '[{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]'
        yield ERROR, f'"conversations" is missing or empty: write "conversations": {example}'
        return
    speakers = []
    for number, turn in enumerate(conversations, 1):
        if not isinstance(turn, dict) or not {"from", "value"} <= set(turn):
            yield ERROR, f'turn {number} must be an object with "from" and "value"'
            return
        speaker, text = turn["from"], turn["value"]
        if speaker not in list(ROLES):
            yield ERROR, f"turn {number} is from {show(speaker)}: {_speaker_hint(speaker)}"
            return
        if not isinstance(text, str):
            yield ERROR, f'the "value" of turn {number} is {show(text)}: give text'
            return
        if not text.strip():
            yield ERROR, f"turn {number} is empty: write its text or remove the item"
        speakers.append(speaker)
    start = int(speakers[0] == "system")
    for number, speaker in enumerate(speakers[start:], start):
        expected = ("human", "gpt")[(number - start) % 2]
        if speaker != expected:
            yield (
                ERROR,
                f'turn {number + 1} is from "{speaker}" where "{expected}" is due: after an '
                'optional "system" turn, "human" and "gpt" take turns',
            )
            return
    if len(speakers) == start or speakers[-1] != "gpt":
        yield ERROR, 'the last turn has no answer: end the conversation with a "gpt" turn'


def _speaker_hint(speaker: Any) -> str:
    other_names = {value: key for key, value in ROLES.items()} | {"bot": "gpt", "model": "gpt"}
    if isinstance(speaker, str) and speaker.lower() in other_names:
        return f'write "{other_names[speaker.lower()]}"'
    return f"use one of {', '.join(ROLES)}"


def _check_times(times: Any, turns: Sequence[Turn], has_video: bool) -> Iterator[Finding]:
    tokens = sum(turn.text.count(TIME_STAMP) for turn in turns)
    if times is None:
        times = []
    if not isinstance(times, list) or not all(map(is_number, times)):
        yield (
            ERROR,
            f'"tgt" is {show(times)}: give a flat list of finite numbers in seconds, '
            "[start, end, start, end, ...]",
        )
        return
    if times and not tokens:
        yield (
            ERROR,
            f'"tgt" has {len(times)} times, but no turn has a {TIME_STAMP}: write one in the '
            'answer for each interval, or remove "tgt"',
        )
        return
    if len(times) % 2:
        yield ERROR, f'"tgt" has {len(times)} times: give a start and an end for each interval'
        return
    if len(times) != 2 * tokens:
        yield (
            ERROR,
            f'"tgt" has {len(times) // 2} intervals for {tokens} {TIME_STAMP} in the turns: give '
            "one interval (two times) for each, questions included",
        )
        return
    if times and not has_video:
        yield ERROR, f'{TIME_STAMP} needs a video: name one, or remove "tgt" and the token'
    for start, end in zip(times[::2], times[1::2], strict=True):
        if start < 0 or end < 0:
            yield (
                ERROR,
                f"interval [{start}, {end}] is negative: times count from the video's start",
            )
        elif end < start:
            yield ERROR, f"interval [{start}, {end}] ends before it starts: swap the two"
        elif end == start:
            yield WARNING, f"interval [{start}, {end}] has no length"
