"""Reading all of a training mixture, and naming every problem in it instead of the first."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distime.data.lines import JsonlIndex
from distime.data.meta import DataSource, scan_meta
from distime.data.problems import ERROR, WARNING, AnnotationError, Finding, Problem
from distime.data.schema import (
    TrainingItem,
    beyond,
    clamp_targets,
    cut_off,
    examine,
    in_own_words,
    refuse_beyond,
)
from distime.processing.prompt import PromptError, encode_conversation

if TYPE_CHECKING:  # a check without lengths does without what this imports
    from distime.processing.processor import DisTimeProcessor


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
        num_frames: frames of a video; not used where the processor goes by the second.
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
    durations: dict[Path, float | None] = {}
    for number, record in zip(numbers, index.records(numbers), strict=True):
        line = index.line_number(number)
        item, findings = examine(record, source, line)
        counts = {} if item is None else _check_item(item, settings, durations, findings)
        problems = [Problem(index.path, line, severity, text) for severity, text in findings]
        yield CheckedLine(tuple(problems), **counts)


def _check_item(
    item: TrainingItem,
    settings: CheckSettings,
    durations: dict[Path, float | None],
    findings: list[Finding],
) -> dict[str, int]:
    """Add the findings of a valid item's files and sequence; return counts of `CheckedLine`."""
    counts = {"num_events": len(item.targets)}
    if item.video is not None:
        duration = _duration(item.video, settings, durations, findings)
        if duration is not None:
            counts["num_clamped"] = _check_intervals(item, duration, findings)
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


def _check_intervals(item: TrainingItem, duration: float, findings: list[Finding]) -> int:
    """Compare with the video's duration in seconds; return how many intervals will be cut."""
    try:
        refuse_beyond(item.targets, duration)
    except AnnotationError as error:
        findings.append((ERROR, str(error)))
        return 0
    for start, end in item.targets:
        if end > duration:
            findings.append((WARNING, beyond(start, end, duration)))
    return clamp_targets(item.targets, duration)[1]


def _num_tokens(item: TrainingItem, settings: CheckSettings, findings: list[Finding]) -> int:
    processor, limit = settings.processor, settings.max_length
    media = processor.image_media(item.images)
    if item.video is not None:
        by_length = processor.settings.fps is not None
        number = None if by_length else settings.num_frames
        media = processor.expected_media(item.video, number)
    turns = in_own_words(processor, item)
    arguments = processor.tokenizer, processor.template, turns, media
    encoded = encode_conversation(*arguments, max_length=limit)  # an error if frames do not fit
    if encoded.is_truncated:
        in_words = processor.time_head.in_words
        lost = 0 if in_words else len(item.targets) - encoded.num_time_stamps
        findings.append((WARNING, cut_off(encoded.num_cut, limit, lost)))
    return len(encoded.input_ids) + encoded.num_cut


def _duration(
    path: Path,
    settings: CheckSettings,
    durations: dict[Path, float | None],
    findings: list[Finding],
) -> float | None:
    """Return a video's duration in seconds; None if it is not opened or cannot be."""
    if path in durations:
        return durations[path]
    if fault := _fault_of_file(path):
        findings.append((ERROR, fault))
        return None
    duration = None
    if settings.open_media:
        from distime.processing.video import VideoError, open_video  # only here videos are decoded

        try:
            with open_video(path) as video:
                severity = ERROR if video.num_missing else WARNING
                findings += ((severity, warning) for warning in video.warnings)
                duration = video.duration
        except (VideoError, OSError) as error:
            findings.append((ERROR, str(error)))
            return None
    durations[path] = duration
    return duration


def _check_image(path: Path, settings: CheckSettings, findings: list[Finding]) -> None:
    if fault := _fault_of_file(path):
        findings.append((ERROR, fault))
    elif settings.open_media:
        from distime.processing.image import ImageError, load_image

        try:
            load_image(path)  # whether the file is whole shows at its end alone
        except ImageError as error:
            reason = str(error).removeprefix(f"{path}: ")
            findings.append((ERROR, f"{path}: no readable image ({reason})"))


def _fault_of_file(path: Path) -> str | None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"{path}: there is no such file: copy it there or remove the item"
    except OSError as error:
        return (
            f"{path}: cannot be opened ({error.strerror}): change its or its folder's permissions"
        )
    return None
