"""From a table of when something happens in videos to training data and a held-out part of it.

A row is one interval: a video, a query, a start and an end. Rows of the same query about the same
video are several intervals of one item. Everything that is wrong is reported at once, by file and
line, and then nothing is written; what is written passes `distime check`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distime.data.meta import DataSource
from distime.data.official import PrepareError
from distime.data.problems import place_of, printable, show
from distime.data.video_finder import VideoFinder
from distime.files import read_text, write_json, write_text
from distime.model.tokens import TIME_STAMP
from distime.processing.questions import RETRIEVAL

DELIMITERS = (",", ";", "\t", "|")
QUESTION = RETRIEVAL.format(article="a", query="{query}")
TOLERANCE = 1.0
"""Seconds by which an end may lie behind that of its video, being rounded up; it is cut there."""
SHOWN = 20
"""Problems that are printed."""

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class TableSettings:
    """How a table is read.

    Attributes:
        video, query, start, end: names of the columns.
        delimiter: None: the one that gives these columns.
        question: what is asked, with ``{query}`` in the place of the query.
        held_out: share of the videos that is kept out of training, 0 for none.
        seed: which videos these are.
    """

    video: str = "video"
    query: str = "query"
    start: str = "start"
    end: str = "end"
    delimiter: str | None = None
    question: str = QUESTION
    held_out: float = 0.1
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the attributes."""
        return self.video, self.query, self.start, self.end

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            PrepareError: names the flag.
        """
        if "{query}" not in self.question:
            raise PrepareError(
                f"--question {self.question!r}: write {{query}} where the query goes"
            )
        if not 0 <= self.held_out < 1:
            raise PrepareError(f"--held-out {self.held_out}: give a share from 0 to below 1")
        if len(set(self.columns)) < len(self.columns):
            raise PrepareError(f"the columns {', '.join(self.columns)} must be four different ones")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise PrepareError(f"--delimiter {self.delimiter!r}: give one character, or tab")


@dataclass
class Table:
    """What was read: (video, query) -> intervals with their lines, and what was amended.

    Attributes:
        events: video's path below its root and query -> (start, end, line), seconds.
        notes: what was cut or left out, as ``file:line: ...``.
        missing: rows left out because their video is not there.
    """

    events: dict[tuple[str, str], list[tuple[float, float, int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True)
class Written:
    """What was written: the files, items and intervals, and videos of the two parts."""

    files: list[Path]
    items: int
    intervals: int
    train_videos: int
    held_out_videos: int
    notes: list[str]
    missing: int


def seconds(text: str) -> float:
    """Return a time in seconds: ``75``, ``75.5``, ``1:15.5`` or ``0:01:15.5``.

    Raises:
        ValueError: it is none of these; the message says what is wrong, not where.
    """
    text = text.strip()
    if not text:
        raise ValueError("is missing")
    if text.startswith("-"):
        raise ValueError(f"is {show(text)}, before the video begins")
    match = _CLOCK.fullmatch(text)
    if not match:
        raise ValueError(f"is {show(text)}: write seconds (75.5), mm:ss (1:15.5) or h:mm:ss")
    hours, minutes, rest = match.groups()
    if (minutes and float(rest) >= 60) or (hours and int(minutes) >= 60):
        raise ValueError(f"is {show(text)}: minutes and seconds behind a colon are below 60")
    value = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)
    if not math.isfinite(value):
        raise ValueError(f"is {show(text)}, which is no time")
    return value


def prepare_table(
    path: Path,
    out: Path,
    settings: TableSettings,
    video_root: Path | None = None,
    available_only: bool = False,
) -> Written:
    """Write ``train.jsonl`` with ``meta.json``, and ``held_out.jsonl`` with ``held_out.json``.

    Args:
        path: the table.
        out: folder for the files.
        settings: how to read it.
        video_root: folder of the videos; None: that of the table.
        available_only: leave out rows whose video is missing.

    Raises:
        PrepareError: a row is wrong, or too little is left; all problems are named.
        FileError: the table cannot be read or the files not be written.
    """
    settings.check()
    root = path.parent if video_root is None else video_root
    if not root.is_dir():
        raise PrepareError(f"--video-root {root}: no such folder")
    table, problems = read_table(path, settings, root, available_only)
    parts = split(sorted({video for video, _ in table.events}), settings)
    lines: dict[str, list[str]] = {part: [] for part in ("train", "held_out")}
    for (video, query), events in table.events.items():
        record = item(video, query, [event[:2] for event in sorted(events)], settings.question)
        source = DataSource("", root, path)
        problems += list(_faults(record, source, events[0][2]))
        part = "held_out" if video in parts else "train"
        lines[part].append(json.dumps(record, ensure_ascii=False) + "\n")
    if problems:
        more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise PrepareError(
            f"{path}: {len(problems)} things to mend, nothing was written:\n"
            + "\n".join(problems[:SHOWN])
            + more
        )
    videos = {video for video, _ in table.events}
    if len(videos) <= len(parts):
        raise PrepareError(
            f"{path}: {len(videos)} videos, of which --held-out {settings.held_out} keeps "
            f"{len(parts)}: nothing would be left to train; give more videos or --held-out 0"
        )
    files = []
    below = root if root.is_absolute() else Path(os.path.relpath(root, out))
    for part, meta in (("train", "meta"), ("held_out", "held_out")):
        if lines[part]:
            write_text(out / f"{part}.jsonl", "".join(lines[part]))
            entry = {"root": str(below), "annotation": f"{part}.jsonl", "length": len(lines[part])}
            write_json(out / f"{meta}.json", {part: entry})
            files += [out / f"{part}.jsonl", out / f"{meta}.json"]
    return Written(
        files,
        sum(map(len, lines.values())),
        sum(map(len, table.events.values())),
        len(videos) - len(parts),
        len(parts),
        table.notes,
        table.missing,
    )


def item(
    video: str, query: str, windows: Sequence[tuple[float, float]], question: str = QUESTION
) -> dict:
    """Return the training item of a query about a video; windows in seconds."""
    *most, last = [TIME_STAMP] * len(windows)
    stamps = f"{', '.join(most)} and {last}" if most else last
    return {
        "video": video,
        "tgt": [time for window in windows for time in window],
        "conversations": [
            {"from": "human", "value": "<video>\n" + question.replace("{query}", query)},
            {"from": "gpt", "value": f"The event is depicted at {stamps}."},
        ],
        "task": "grounding",
    }


def split(videos: Sequence[str], settings: TableSettings) -> set[str]:
    """Choose the videos that are held out: at least one where any are to be.

    The choice depends on the seed and the names alone, so that most videos stay where they are when
    others are added.
    """
    if not settings.held_out:
        return set()

    def place(video: str) -> str:
        return hashlib.sha256(f"{settings.seed} {video}".encode()).hexdigest()

    count = max(1, round(settings.held_out * len(videos)))
    return set(sorted(videos, key=place)[:count])


# -------------------------------------------------------------------------------------- rows


def read_table(
    path: Path, settings: TableSettings, root: Path, available_only: bool = False
) -> tuple[Table, list[str]]:
    """Read the rows; return them and what is wrong, as ``file:line: ...``.

    Raises:
        PrepareError: it is no table, or lacks a column.
        FileError: it cannot be read.
    """
    table, problems = Table(), []
    finder, durations = VideoFinder(root), {}
    for line, row in _rows(path, settings):
        place = place_of(path, line)
        if isinstance(row, str):
            problems.append(f"{place}: {row}")
            continue
        video, query, *times = row
        faults = [
            f'"{name}" is missing'
            for name, text in zip(settings.columns[:2], (video, query), strict=True)
            if not text
        ]
        window = []
        for name, text in zip(settings.columns[2:], times, strict=True):
            try:
                window.append(seconds(text))
            except ValueError as error:
                faults.append(f'"{name}" {error}')
        if len(window) == 2 and window[1] <= window[0]:
            ends = "ends before it starts: swap the two" if window[1] < window[0] else "is a point"
            faults.append(f"{' - '.join(times)} {ends}")
        if faults:
            problems += [f"{place}: {fault}" for fault in faults]
            continue
        file = finder.find(video)
        if not file.exists():
            if available_only:
                table.missing += 1
            else:
                problems.append(f"{place}: {file}: no such video (see --video-root)")
            continue
        if file not in durations:
            durations[file] = _duration(file)
        if isinstance(durations[file], str):
            problems.append(f"{place}: {durations[file]}")
            continue
        _add(table, problems, place, (file, root), query, window, durations[file], line)
    if not table.events and not problems:
        why = f"all {table.missing} videos are missing" if table.missing else "it has no rows"
        raise PrepareError(f"{path}: {why}")
    return table, list(map(printable, problems))


def _add(
    table: Table,
    problems: list[str],
    place: str,
    where: tuple[Path, Path],
    query: str,
    window: list[float],
    duration: float,
    line: int,
) -> None:
    file, root = where
    start, end = window
    if start >= duration or end > duration + TOLERANCE:
        problems.append(
            f"{place}: {start:g} - {end:g} lies beyond the {duration:g} seconds of {file}"
        )
        return
    if end > duration:
        table.notes.append(f"{place}: the end {end:g} is cut to the video's {duration:g} seconds")
        end = duration
    name = file.relative_to(root) if file.is_relative_to(root) else file
    events = table.events.setdefault((name.as_posix(), query), [])
    if twin := next((one for one in events if one[:2] == (start, end)), None):
        table.notes.append(f"{place}: left out, line {twin[2]} says the same")
        return
    events.append((start, end, line))


def _rows(path: Path, settings: TableSettings) -> Iterator[tuple[int, list[str] | str]]:
    """Yield line and the four values of every row, or what is wrong with it."""
    text = read_text(path, "table").removeprefix("\ufeff")
    delimiter = settings.delimiter or _delimiter(path, text, settings)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(reader, [])]
    for name, flag in zip(settings.columns, ("video", "query", "start", "end"), strict=True):
        if header.count(name) != 1:
            raise PrepareError(
                f"{path}: its header has {header.count(name) or 'no'} {name!r}, but "
                f"{', '.join(map(repr, header)) or 'nothing'}; name the column with "
                f"--{flag}-column, or the delimiter with --delimiter"
            )
    places = [header.index(name) for name in settings.columns]
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield line, f"no row of a table ({error}): mend its quotes"
            return
        if row is None:
            return
        if not any(map(str.strip, row)):
            continue
        if len(row) != len(header):
            yield line, f"{len(row)} values for {len(header)} columns: quote what holds a delimiter"
        else:
            yield line, [row[place].strip() for place in places]


def _delimiter(path: Path, text: str, settings: TableSettings) -> str:
    """The delimiter that finds most of the columns in the header; of equals the one with most."""
    first = text.partition("\n")[0].rstrip("\r")

    def found(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        return sum(name in names for name in settings.columns), len(names)

    return max(DELIMITERS, key=found)


def _duration(file: Path) -> float | str:
    """A video's length in seconds, or why it has none."""
    from distime.processing.video import VideoError, open_video  # only here videos are opened

    try:
        with open_video(file) as video:
            return video.duration
    except (VideoError, OSError) as error:
        return str(error)


def _faults(record: dict, source: DataSource, line: int) -> Iterator[str]:
    """What the training format refuses in an item: a tag in a query, for instance."""
    from distime.data.schema import examine

    item, findings = examine(record, source, line)
    if item is None:
        yield from (printable(f"{place_of(source.annotation, line)}: {m}") for _, m in findings)
