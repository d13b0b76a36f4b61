"""What one annotation line may say (docs/DATA.md), and the item that it becomes.

Times in annotation files are seconds, and stay seconds here.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distime.data.dialects import in_our_keys
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

if TYPE_CHECKING:
    from distime.processing.processor import DisTimeProcessor

MAX_NAME, MAX_PATH = 255, 4095
"""Bytes of a file name and of a path, as Linux has them."""
BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "AAAA", "GkXfo")
"""How base64 of png, jpeg, gif, webp or avi, mp4, and mkv or webm begins."""


@dataclasses.dataclass(frozen=True)
class TrainingItem:
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


def parse_item(record: Any, source: DataSource, line: int) -> TrainingItem:
    """Return the item of one annotation line.

    Args:
        record: the line's JSON value, see `JsonlIndex.record`.
        source: where it comes from.
        line: its line number in ``source.annotation``.

    Raises:
        AnnotationError: the record is no valid item. Whether media files exist is not looked at.
    """
    item, findings = examine(record, source, line)
    if item is None:
        message = next(message for severity, message in findings if severity == ERROR)
        raise AnnotationError(f"{place_of(source.annotation, line)}: {message}")
    return item


def read_item(index: JsonlIndex, number: int, source: DataSource) -> TrainingItem:
    """Return item ``number`` of a source's jsonl file, see `parse_item`."""
    return parse_item(index.record(number), source, index.line_number(number))


def clamp_targets(
    targets: Sequence[tuple[float, float]], duration: float
) -> tuple[list[tuple[float, float]], int]:
    """Return intervals (seconds) cut to [0, duration], and how many of them were changed."""
    clamped = [(min(start, duration), min(end, duration)) for start, end in targets]
    return clamped, sum(old != new for old, new in zip(map(tuple, targets), clamped, strict=True))


def refuse_beyond(targets: Sequence[tuple[float, float]], duration: float) -> None:
    """Refuse intervals (seconds) that begin behind the end of their video.

    Cut to the video they would be its last instant, which is no event of it.

    Raises:
        AnnotationError: there is one; the message does not name the line.
    """
    for start, end in targets:
        if start > duration:
            raise AnnotationError(
                f"interval [{start}, {end}] begins behind the end of the video at {duration:g} "
                "seconds: give seconds, of this video"
            )


def in_own_words(
    processor: DisTimeProcessor, item: TrainingItem, duration: float = math.inf
) -> tuple[Turn, ...]:
    """Return the turns of an item as a model reads and writes them: with some, times are words.

    Args:
        processor: of the model.
        item: whose targets are the times.
        duration: of the video, in seconds, to which they are cut.
    """
    targets, _ = clamp_targets(item.targets, duration)
    texts = processor.in_own_words([turn.text for turn in item.turns], targets)
    return tuple(Turn(turn.speaker, text) for turn, text in zip(item.turns, texts, strict=True))


def beyond(start: float, end: float, duration: float) -> str:
    """Say that an interval ends behind the end of its video; all in seconds."""
    return (
        f"interval [{start}, {end}] ends beyond the video's {duration:g} seconds and will be cut "
        "there"
    )


def examine(
    record: Any, source: DataSource, line: int
) -> tuple[TrainingItem | None, list[Finding]]:
    """Return an annotation line's item, and all that is wrong with the line.

    Args:
        record: the line's JSON value; a line that has none is its `AnnotationError`.
        source: where it comes from.
        line: its line number in ``source.annotation``.

    Returns:
        the item, or None if one of the findings is an error; whether media files exist is not
        looked at.
    """
    place = place_of(source.annotation, line)
    if isinstance(record, AnnotationError):
        return None, [(ERROR, str(record).removeprefix(f"{place}: "))]
    if not isinstance(record, dict):
        kind = type(record).__name__
        return None, [(ERROR, f"an item must be a JSON object, this is a {kind}: write {{...}}")]
    record, findings = in_our_keys(record)
    findings += _check_media(record)
    findings += _check_turns(record.get("conversations"))
    if _has_error(findings):
        return None, findings
    turns = tuple(map(Turn.of, record["conversations"]))
    video, images = media_of(record)
    findings += _check_tags(turns, video, images)
    times = record.get("tgt")
    findings += _check_times([] if times is None else times, turns, has_video=bool(video))
    if _has_error(findings):
        return None, findings
    times = list(map(float, times or ()))
    root = source.root
    return TrainingItem(
        turns=turns,
        video=root / video if video else None,
        images=tuple(root / image for image in images),
        targets=tuple(zip(times[::2], times[1::2], strict=True)),
        place=place,
    ), findings


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(severity == ERROR for severity, _ in findings)


# ------------------------------------------------------------------------------------ media


def media_of(record: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Return the video and the images of a record in our keys."""
    images = record.get("image")
    if images is None:
        images = []
    return record.get("video"), [images] if isinstance(images, str) else images


def _check_media(record: Mapping[str, Any]) -> Iterator[Finding]:
    video, images = media_of(record)
    if video is not None and not (isinstance(video, str) and video):
        yield ERROR, f'"video" is {show(video)}: give one path'
    if not isinstance(images, list) or not all(isinstance(i, str) and i for i in images):
        yield ERROR, f'"image" is {show(images)}: give a path or a list of paths'
        return
    if video and images:
        yield ERROR, 'an item has a "video" or an "image", not both: make two items'
    for path in [video, *images]:
        if isinstance(path, str) and (fault := _fault_of(path)):
            yield ERROR, f"{show(path)} {fault}"


def _fault_of(path: str) -> str | None:
    if path.startswith("data:") or (path.startswith(BASE64_STARTS) and len(path) > MAX_NAME):
        return "is the media themselves, in base64: write them to a file and give its path"
    if "://" in path[:12]:
        return "is a URL: download the file and give its path"
    if not is_unicode(path):
        return "holds half of a character: correct the path"
    if "\0" in path:
        return "holds a NUL character: correct the path"
    if len(path) > MAX_NAME // 4 and (
        len(os.fsencode(path)) > MAX_PATH
        or any(len(os.fsencode(name)) > MAX_NAME for name in path.split("/"))
    ):
        return "is too long for a path: give the path of a file"
    # Nothing but a ".." leads out of the root folder.
    if ".." in path and not Path(path).is_absolute():
        parts = Path(os.path.normpath(path)).parts
        if parts and parts[0] == os.pardir:
            return 'leaves the root folder: write an absolute path or set "root" higher'
    return None


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can write and UTF-8 cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_tags(
    turns: Sequence[Turn], video: str | None, images: Sequence[str]
) -> Iterator[Finding]:
    for token in (IMG_CONTEXT, FRAME_TIME_REF):
        for turn in turns:
            if token in turn.text:
                yield ERROR, f"{token} is written by the processor: remove it from the text"
                break
    try:
        place_media(turns, Media(0, num_frames=int(bool(video)), image_tiles=(1,) * len(images)))
    except PromptError as error:
        yield ERROR, str(error)


# ------------------------------------------------------------------------------------ turns


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
        if not isinstance(speaker, str) or speaker not in ROLES:
            yield ERROR, f"turn {number} is from {show(speaker)}: {_speaker_hint(speaker)}"
            return
        if not isinstance(text, str):
            yield ERROR, f'the "value" of turn {number} is {show(text)}: give text'
            return
        if not text.strip():
            yield ERROR, f"turn {number} is empty: write its text or remove the item"
        if not is_unicode(text):
            half = next(letter for letter in text if "\ud800" <= letter <= "\udfff")
            yield ERROR, f"turn {number} holds half of a character, {show(half)}: write it whole"
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


# ------------------------------------------------------------------------------------ times


def _check_times(times: Any, turns: Sequence[Turn], has_video: bool) -> Iterator[Finding]:
    tokens = sum(turn.text.count(TIME_STAMP) for turn in turns)
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


def cut_off(num_cut: int, max_length: int, num_lost: int) -> str:
    """Say what a sequence loses that is cut to the longest length: tokens, and intervals."""
    with_them = f", and {num_lost} of its intervals with them" if num_lost else ""
    return f"{num_cut} of {max_length + num_cut} tokens will be cut off the end{with_them}"
