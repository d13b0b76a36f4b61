"""Annotation lines in the keys of other projects: read under ours, or refused by name.

LLaMA-Factory writes ``images``, ``videos`` (lists), ``system`` and ``messages`` with ``role`` and
``content``, Qwen's own scripts likewise. What means the same here is taken; what does not, or would
be left out unseen, is named with its mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distime.data.problems import ERROR, WARNING, Finding, show

OURS = ("video", "image", "conversations", "tgt")
THEIRS = {"videos": "video", "images": "image", "messages": "conversations"}
"""Key of other projects -> ours."""
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
"""``role`` of a message -> ``from`` of a turn."""
MEDIA_BY_OTHER_NAMES = {
    f"{kind}{ending}": kind
    for kind in ("video", "image")
    for ending in ("_path", "_file", "_url", "_paths", "_files", "_urls")
}
UNUSED = {
    "clip": 'cut the video file and shift "tgt" instead',
    "audio": "the model hears nothing",
    "audios": "the model hears nothing",
}


class _Refused(Exception):
    """A key that cannot be read under our name; the message says why and how to mend it."""


def in_our_keys(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """Return a record with what other projects' keys say under ours, and what is wrong with them.

    A key whose value is null is as good as absent.
    """
    record = dict(record)
    findings: list[Finding] = []
    foreign = [key for key in record if key not in OURS]
    # The system message goes into the turns, which may have to be taken first.
    for key in sorted(foreign, key="system".__eq__):
        try:
            if key in THEIRS:
                _take(record, key)
            elif key == "system":
                _take_system(record)
            elif key in UNUSED:
                findings.append((WARNING, f'"{key}" is ignored: {UNUSED[key]}'))
            else:
                _refuse_misnamed(record, key)
        except _Refused as error:
            findings.append((ERROR, str(error)))
    return record, findings


def _take(record: dict[str, Any], key: str) -> None:
    value, ours = record.pop(key), THEIRS[key]
    if value is None:
        return
    if record.get(ours) not in (None, []):
        raise _Refused(f'"{key}" stands beside "{ours}": keep one of the two')
    if key == "videos":
        value = _one_video(value)
    elif key == "images" and value == []:
        value = None
    elif key == "messages":
        value = _turns(value)
    record[ours] = value


def _one_video(value: Any) -> Any:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise _Refused(f'"videos" is {show(value)}: give a list of one path')
    if len(paths) > 1:
        raise _Refused(
            f'"videos" names {len(paths)} videos: an item has one; make an item for each'
        )
    return paths[0] if paths else None


def _turns(messages: Any) -> Any:
    if not isinstance(messages, list):
        raise _Refused(f'"messages" is {show(messages)}: give a list of turns')
    turns = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise _Refused(f'turn {number} of "messages" must have a "role" and a "content"')
        role, content = message["role"], message["content"]
        if not isinstance(role, str) or role not in SPEAKERS:
            known = ", ".join(SPEAKERS)
            raise _Refused(f'turn {number} of "messages" is from {show(role)}: use one of {known}')
        if not isinstance(content, str):
            raise _Refused(
                f'the "content" of turn {number} is {show(content)}: give its text, with <video> '
                'or <image> where the media stand, and their paths under "video" or "image"'
            )
        turns.append({"from": SPEAKERS[role], "value": content})
    return turns


def _take_system(record: dict[str, Any]) -> None:
    text, turns = record.pop("system"), record.get("conversations")
    if text is None or text == "":
        return
    if not isinstance(text, str):
        raise _Refused(f'"system" is {show(text)}: give the text of the system message')
    if not isinstance(turns, list):
        return  # named where turns are looked at
    if turns and isinstance(turns[0], dict) and turns[0].get("from") == "system":
        raise _Refused('"system" stands beside a "system" turn: keep one of the two')
    record["conversations"] = [{"from": "system", "value": text}, *turns]


def _refuse_misnamed(record: Mapping[str, Any], key: str) -> None:
    """Refuse a key that would leave an item without what it is about, if nothing else names it."""
    ours = THEIRS.get(key.lower(), key.lower())
    if ours not in OURS:
        ours = MEDIA_BY_OTHER_NAMES.get(key.lower())
    is_media = ours in ("video", "image")
    if ours and not (
        record.get(ours)
        or (is_media and any(record.get(k) for k in ("video", "image", "videos", "images")))
    ):
        raise _Refused(f'"{key}" is not read: rename it to "{ours}"')
