"""Training annotations: what the meta file and the jsonl files may say, and reading them.

A meta file names the sources of a training mixture, a source's jsonl file holds one item per
line; ``docs/DATA.md`` describes both. Reading stops at the first error (`AnnotationError`);
`check` goes on and reports every problem.

Times in annotation files are seconds, and stay seconds here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from distime.errors import DisTimeError
from distime.model.tokens import FRAME_TIME_REF, IMG_CONTEXT, TIME_STAMP
from distime.processing.prompt import (
    ROLES,
    Media,
    PromptError,
    Turn,
    encode_conversation,
    place_media,
)

if TYPE_CHECKING:  # a check without lengths does without what this imports
    from distime.processing.processor import DisTimeProcessor

ERROR, WARNING = "error", "warning"
UTF8_BOM = b"\xef\xbb\xbf"


class AnnotationError(DisTimeError):
    """A meta or annotation file is wrong; the message names file and line and says the mend."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a file. ``line`` counts from 1, None where no line is to blame."""

    file: Path
    line: int | None
    severity: str
    message: str

    def __str__(self) -> str:
        return f"{_place(self.file, self.line)}: {self.severity}: {self.message}"


def _place(file: Path, line: int | None) -> str:
    return str(file) if line is None else f"{file}:{line}"


Finding = tuple[str, str]
"""(severity, message): a problem whose place is known to the caller."""

# ------------------------------------------------------------------------------- meta file


@dataclasses.dataclass(frozen=True)
class DataSource:
    """One source of a training mixture: an entry of the meta file.

    Attributes:
        name: the entry's key.
        root: folder that media paths are relative to.
        annotation: the jsonl file.
        repeat_time: below 1, the first that fraction of the items is used; an integer from 1 on,
            the items are used that many times an epoch.
        length: number of items the file should have, None where the meta file does not say.
        data_augment: True recompresses frames as JPEG of random quality before use.
    """

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1
    length: int | None = None
    data_augment: bool = False

    def sample_indices(self, num_items: int) -> np.ndarray:
        """Return the int64 item indices of one epoch, repeats included."""
        if self.repeat_time < 1:
            return np.arange(int(num_items * self.repeat_time))
        return np.tile(np.arange(num_items), int(self.repeat_time))


REQUIRED_KEYS = ("root", "annotation")
META_KEYS = tuple(field.name for field in dataclasses.fields(DataSource) if field.name != "name")


def read_meta(path: str | os.PathLike[str]) -> list[DataSource]:
    """Return the sources of a meta file, in order.

    ``root`` and ``annotation`` are relative to the meta file's folder.

    Raises:
        AnnotationError: the file is missing, is no JSON, or has a wrong entry.
    """
    path = Path(path)
    sources = []
    for found in scan_meta(path):
        if isinstance(found, Problem) and found.severity == ERROR:
            raise AnnotationError(f"{_place(path, found.line)}: {found.message}")
        if isinstance(found, DataSource):
            sources.append(found)
    return sources


def scan_meta(path: Path) -> Iterator[DataSource | Problem]:
    """Yield a meta file's sources and the problems in it; a wrong entry is no source."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_no_duplicates)
    except OSError as error:
        yield Problem(path, None, ERROR, f"cannot read the meta file: {error.strerror}")
        return
    except json.JSONDecodeError as error:
        yield Problem(path, error.lineno, ERROR, f"no JSON ({error.msg}): correct this line")
        return
    except (UnicodeDecodeError, AnnotationError) as error:
        yield Problem(path, None, ERROR, str(error))
        return
    if not isinstance(entries, dict) or not entries:
        expected = '{"name": {"root": "videos", "annotation": "train.jsonl"}}'
        yield Problem(path, None, ERROR, f"the meta file must name its sources: {expected}")
        return
    for name, entry in entries.items():
        findings = list(_check_entry(entry, path.parent))
        for severity, message in findings:
            yield Problem(path, None, severity, f'source "{name}": {message}')
        if all(severity != ERROR for severity, _ in findings):
            values = {key: entry[key] for key in META_KEYS if entry.get(key) is not None}
            for key in REQUIRED_KEYS:
                values[key] = path.parent / values[key]
            yield DataSource(name, **values)


def _check_entry(entry: Any, folder: Path) -> Iterator[Finding]:
    if not isinstance(entry, dict):
        yield ERROR, f"must be an object with the keys {', '.join(META_KEYS)}"
        return
    for key in entry:
        if key not in META_KEYS:
            close = difflib.get_close_matches(key, META_KEYS, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(META_KEYS)}"
            yield ERROR, f'unknown key "{key}": {hint}'
    for key, is_there in (("root", Path.is_dir), ("annotation", Path.is_file)):
        value = entry.get(key)
        if not isinstance(value, str):
            yield ERROR, f'"{key}" must be a path, not {_show(value)}'
        elif not is_there(folder / value):
            kind = "folder" if key == "root" else "file"
            yield (
                ERROR,
                f'"{key}": there is no {kind} {folder / value} (paths are relative to the folder '
                "of the meta file, or absolute)",
            )
    repeat = entry.get("repeat_time", 1)
    if not _is_number(repeat) or repeat <= 0 or (repeat > 1 and repeat != int(repeat)):
        yield (
            ERROR,
            f'"repeat_time" is {_show(repeat)}: give a fraction below 1 to use the first part '
            "of the items, or an integer to repeat them",
        )
    length = entry.get("length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int)):
        yield ERROR, f'"length" is {_show(length)}: give the number of items, or leave it out'
    if not isinstance(entry.get("data_augment", False), bool):
        yield ERROR, f'"data_augment" is {_show(entry["data_augment"])}: give true or false'


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise AnnotationError(f'the key "{key}" is there twice: rename or remove one')
    return dict(pairs)


# --------------------------------------------------------------------------- jsonl reading


class JsonlIndex:
    """Random access to the lines of a jsonl file, keeping only their offsets in memory.

    Blank lines are skipped, a byte order mark and Windows line ends are accepted. The object can
    be pickled: it holds no open file.

    Raises:
        AnnotationError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        offsets, numbers, end = [], [], 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    text = line.removeprefix(UTF8_BOM).strip()
                    if text.startswith(b"[") and not offsets:
                        raise AnnotationError(
                            f"{self.path}:{number}: the file is one JSON list: write one object "
                            "per line instead, with no list around them or commas between"
                        )
                    if text:
                        offsets.append(end)
                        numbers.append(number)
                    end += len(line)
        except OSError as error:
            raise AnnotationError(
                f"{self.path}: cannot read the annotation file: {error.strerror}"
            ) from error
        self._offsets = np.array(offsets, dtype=np.int64)
        self._numbers = np.array(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets)

    def line_number(self, index: int) -> int:
        """Return the line of item ``index`` in the file, counted from 1."""
        return int(self._numbers[index])

    def record(self, index: int) -> Any:
        """Return the JSON value of item ``index``.

        Raises:
            AnnotationError: the line is no JSON or no UTF-8.
        """
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline().removeprefix(UTF8_BOM).strip()
        place = _place(self.path, self.line_number(index))
        try:
            return json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise AnnotationError(f"{place}: no UTF-8 text ({error.reason}): convert it") from None
        except json.JSONDecodeError as error:
            raise AnnotationError(
                f"{place}: no JSON ({error.msg} at column {error.colno}): write one JSON object "
                "per line"
            ) from None


# ----------------------------------------------------------------------------------- items


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
    place = _place(source.annotation, line)
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
        yield ERROR, f'"video" is {_show(video)}: give one path'
    if not isinstance(images, list) or not all(isinstance(i, str) and i for i in images):
        yield ERROR, f'"image" is {_show(images)}: give a path or a list of paths'
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
            yield ERROR, f"turn {number} is from {_show(speaker)}: {_speaker_hint(speaker)}"
            return
        if not isinstance(text, str):
            yield ERROR, f'the "value" of turn {number} is {_show(text)}: give text'
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
    if not isinstance(times, list) or not all(map(_is_number, times)):
        yield (
            ERROR,
            f'"tgt" is {_show(times)}: give a flat list of finite numbers in seconds, '
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


def _is_number(value: Any) -> bool:
    # The comparison is false for NaN and infinity, and true only for what a float can hold.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


# ------------------------------------------------------------------------------- the check


@dataclasses.dataclass(frozen=True)
class CheckedLine:
    """What `check` learned from one annotation line.

    Attributes:
        problems: what is wrong with it.
        num_events: its intervals.
        num_clamped: intervals that reach beyond the video's duration and will be cut there.
        num_tokens: length of its training sequence before any cut, None without a tokenizer.
    """

    problems: tuple[Problem, ...]
    num_events: int = 0
    num_clamped: int = 0
    num_tokens: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How training will read the items that `check` looks at.

    Attributes:
        processor: for the lengths of sequences; None leaves them out.
        num_frames: frames of a video.
        max_length: longest sequence, None for no limit.
        open_media: False only looks whether media files are there.
    """

    processor: DisTimeProcessor | None = None
    num_frames: int = 16
    max_length: int | None = None
    open_media: bool = True


def check(
    meta_path: str | os.PathLike[str],
    processor: DisTimeProcessor | None = None,
    *,
    workers: int = 0,
    on_line: Callable[[CheckedLine], None] | None = None,
    **settings: Any,
) -> Iterator[Problem]:
    """Yield every problem of a meta file and of the annotation and media files it names.

    Args:
        meta_path: the meta file.
        processor: for the lengths of sequences.
        workers: processes to use, 0 to do the work in this one.
        on_line: called for each annotation line.
        settings: fields of `CheckSettings`.
    """
    meta_path = Path(meta_path)
    settings = CheckSettings(processor=processor, **settings)
    tasks = []
    for found in scan_meta(meta_path):
        if isinstance(found, Problem):
            yield found
            continue
        try:
            index = JsonlIndex(found.annotation)
        except AnnotationError as error:
            yield Problem(meta_path, None, ERROR, f'source "{found.name}": {error}')
            continue
        for severity, message in _check_length(found, len(index)):
            yield Problem(meta_path, None, severity, f'source "{found.name}": {message}')
        # Few large tasks: each carries the tokenizer to its process.
        size = max(64, math.ceil(len(index) / (8 * max(1, workers))))
        starts = range(0, len(index), size)
        tasks += [(settings, found, index, range(i, min(i + size, len(index)))) for i in starts]

    if not workers:
        reports = (line for task in tasks for line in _check_lines(*task))
        yield from _problems(reports, on_line)
    elif tasks:
        with ProcessPoolExecutor(workers) as pool:
            chunks = pool.map(_checked_list, tasks)
            yield from _problems((line for chunk in chunks for line in chunk), on_line)


def _problems(
    lines: Iterator[CheckedLine], on_line: Callable[[CheckedLine], None] | None
) -> Iterator[Problem]:
    for line in lines:
        if on_line is not None:
            on_line(line)
        yield from line.problems


def _check_length(source: DataSource, num_items: int) -> Iterator[Finding]:
    if not num_items:
        yield ERROR, f"{source.annotation} has no items"
    elif not len(source.sample_indices(num_items)):
        yield (
            ERROR,
            f'"repeat_time" {source.repeat_time} of {num_items} items is none: raise it',
        )
    if source.length not in (None, num_items):
        yield (
            WARNING,
            f'"length" is {source.length}, but {source.annotation} has {num_items} items',
        )


def _checked_list(task: tuple) -> list[CheckedLine]:
    return list(_check_lines(*task))


def _check_lines(
    settings: CheckSettings, source: DataSource, index: JsonlIndex, numbers: range
) -> Iterator[CheckedLine]:
    durations: dict[Path, float] = {}
    for number in numbers:
        findings: list[Finding] = []
        counts = {}
        try:
            record = index.record(number)
            findings += check_record(record)
            if all(severity != ERROR for severity, _ in findings):
                item = parse_item(record, source, index.line_number(number))
                counts = _check_item(item, settings, durations, findings)
        except AnnotationError as error:
            place = _place(index.path, index.line_number(number))
            findings.append((ERROR, str(error).removeprefix(f"{place}: ")))
        line = index.line_number(number)
        problems = (Problem(index.path, line, severity, text) for severity, text in findings)
        yield CheckedLine(tuple(problems), **counts)


def _check_item(
    item: Item, settings: CheckSettings, durations: dict[Path, float], findings: list[Finding]
) -> dict[str, int]:
    """Add the findings of a valid item's files and sequence; return counts of `CheckedLine`."""
    counts = {"num_events": len(item.targets)}
    if item.video is not None:
        duration = _duration(item.video, settings, durations, findings)
        if duration is not None:
            counts["num_clamped"] = clamp_targets(item.targets, duration)[1]
            for start, end in item.targets:
                if end > duration:
                    findings.append((WARNING, _beyond(start, end, duration)))
    for image in item.images:
        _check_image(image, settings, findings)
    if settings.processor is not None:
        from distime.processing.image import ImageError

        try:
            counts["num_tokens"] = _num_tokens(item, settings, findings)
        except PromptError as error:
            findings.append((ERROR, str(error)))
        except ImageError:
            pass  # named above
    return counts


def _num_tokens(item: Item, settings: CheckSettings, findings: list[Finding]) -> int:
    processor, limit = settings.processor, settings.max_length
    media = processor.image_media(item.images)
    if item.video is not None:
        media = Media(processor.settings.tokens_per_image, num_frames=settings.num_frames)
    arguments = processor.tokenizer, processor.template, item.turns, media
    length = len(encode_conversation(*arguments).input_ids)
    if limit is not None and length > limit:
        encode_conversation(*arguments, max_length=limit)  # an error if the frames do not fit
        findings.append((WARNING, f"{length - limit} of {length} tokens will be cut off the end"))
    return length


def _beyond(start: float, end: float, duration: float) -> str:
    what = "starts and ends" if start >= duration else "ends"
    return (
        f"interval [{start}, {end}] {what} beyond the video's {duration:g} seconds and will be "
        "cut there"
    )


def _duration(
    path: Path, settings: CheckSettings, durations: dict[Path, float], findings: list[Finding]
) -> float | None:
    from distime.processing.video import VideoError, open_video  # only a check of videos decodes

    if path in durations:
        return durations[path]
    if not path.exists():
        findings.append((ERROR, f"{path}: there is no such file: copy it there or remove the item"))
    elif settings.open_media:
        try:
            with open_video(path) as video:
                durations[path] = video.duration
                return video.duration
        except VideoError as error:
            findings.append((ERROR, str(error)))
    return None


def _check_image(path: Path, settings: CheckSettings, findings: list[Finding]) -> None:
    if not path.exists():
        findings.append((ERROR, f"{path}: there is no such file: copy it there or remove the item"))
    elif settings.open_media:
        try:
            with Image.open(path) as image:
                image.verify()
        except (OSError, SyntaxError, ValueError) as error:
            findings.append((ERROR, f"{path}: no readable image ({error}): replace it"))
