"""From the files that data sets' owners publish to the annotation formats of this repository.

A converter reads the official files of one data set, wherever they lie below a folder, and returns
the files to write; it stands in the file of its benchmark. `prepare` checks the numbers of queries
and videos against the published ones, and which videos are missing on disk.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distime.data.video_finder import VideoFinder
from distime.errors import DisTimeError
from distime.files import FileError, json_lines, read_json, write_json, write_text

Keep = Callable[[str], bool]
"""Whether the queries of a video are wanted."""


class PrepareError(DisTimeError):
    """The official files are missing or of another form; the message says which."""


@dataclass
class Conversion:
    """What a converter read.

    Attributes:
        files: name -> JSON value, or text, to be written.
        videos: one name for each query, in order.
        left_out: reason -> number of items that cannot be converted.
    """

    files: dict[str, Any] = field(default_factory=dict)
    videos: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def unchanged(
    name: str, items: Sequence[Any], video_of: Callable[[Any], str], keep: Keep
) -> Conversion:
    """Take over the rows of an official file, those whose video is wanted.

    Args:
        name: of the file, which is written as JSON lines if it ends so.
        items: its rows, one for each query.
        video_of: which video a row is about.
        keep: whether that is wanted.
    """
    videos = [video_of(item) for item in items]
    wanted = [item for item, video in zip(items, videos, strict=True) if keep(video)]
    value = json_lines(wanted) if name.endswith(".jsonl") else wanted
    return Conversion({name: value}, videos)


class Source:
    """A folder that holds official files, in whatever folders below it, or one such file."""

    def __init__(self, path: Path):
        if not path.exists():
            raise PrepareError(f"--source {path}: no such file or folder")
        self.path = path

    def find(self, *names: str, fits: Callable[[Path], bool] = lambda _: True) -> Path:
        """Return the file of one of these names that fits.

        Raises:
            PrepareError: there is none.
        """
        candidates = [self.path] if self.path.is_file() else sorted(self.path.rglob("*"))
        for name in names:
            for path in candidates:
                if path.is_file() and path.name == name and fits(path):
                    return path
        raise PrepareError(f"--source {self.path}: it holds no {' or '.join(names)}")

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.path.name == name or (self.path.is_dir() and any(self.path.rglob(name)))

    def json(self, *names: str) -> Any:
        """Return the value of a JSON file, see `find`."""
        try:
            return read_json(self.find(*names), "official annotation")[0]
        except FileError as error:
            raise PrepareError(str(error)) from None

    def json_lines(self, *names: str) -> Iterator[Any]:
        """Yield the values of a JSON lines file, see `find`."""
        for line in self.find(*names).read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield json.loads(line)


@dataclass(frozen=True)
class OfficialData:
    """A data set: how to read it, and how much of it there should be.

    Attributes:
        name: on the command line.
        convert: the converter.
        queries: published number of queries, None where it is not known.
        videos: published number of videos, likewise.
        note: what to know when the numbers differ.
    """

    name: str
    convert: Callable[[Source, Keep], Conversion]
    queries: int | None = None
    videos: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        files: written.
        queries: written (a dense-captioning video is one query).
        videos: that they are about.
        missing: videos that are not below the video root; None where that was not looked at.
        left_out: reason -> number of items.
        problems: numbers that differ from the published ones.
    """

    files: list[Path]
    queries: int
    videos: int
    missing: list[str] | None
    left_out: dict[str, int]
    problems: list[str]


def prepare(
    data_set: OfficialData,
    source: Path,
    out: Path,
    video_root: Path | None = None,
    available_only: bool = False,
) -> Report:
    """Convert the official files of a data set and check what came of it.

    Args:
        data_set: which, see `distime.benchmarks.official_data`.
        source: folder with the official files, or the one file that is needed.
        out: folder for the converted files.
        video_root: where the videos are looked for.
        available_only: leave out the queries whose video is missing.

    Raises:
        PrepareError: an official file is missing or of another form.
    """
    if available_only and video_root is None:
        raise PrepareError("--available-only: name the folder of the videos with --video-root")
    if video_root is not None and not video_root.is_dir():
        raise PrepareError(f"--video-root {video_root}: no such folder")
    files = Source(source)
    made = _convert(data_set, files, lambda _: True)
    missing = None if video_root is None else sorted(_missing(made.videos, video_root))
    if available_only:
        absent = set(missing)
        kept = _convert(data_set, files, lambda video: video not in absent)
        made.files, made.left_out = kept.files, kept.left_out
        made.videos = [video for video in made.videos if video not in absent]
    queries, videos = len(made.videos), len(set(made.videos))
    published = (("queries", queries, data_set.queries), ("videos", videos, data_set.videos))
    problems = [
        f"{found} {what} where published results have {expected}"
        for what, found, expected in published
        if expected is not None and found != expected
    ]
    if problems and data_set.note:
        problems.append(data_set.note)
    written = []
    for file_name, value in made.files.items():
        path = out / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, str):
            write_text(path, value)
        else:
            write_json(path, value)
        written.append(path)
    return Report(written, queries, videos, missing, made.left_out, problems)


def _convert(data_set: OfficialData, source: Source, keep: Keep) -> Conversion:
    try:
        return data_set.convert(source, keep)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, PrepareError):
            raise
        expected = (data_set.convert.__doc__ or "see docs/EVALUATION.md").splitlines()[0]
        raise PrepareError(
            f"--source {source.path}: not the official files of {data_set.name} ({error!r}); "
            f"expected: {expected}"
        ) from None


def table_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a CSV file by its header."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def has_column(path: Path, name: str) -> bool:
    """Whether the header of a CSV file has that column."""
    with path.open(encoding="utf-8", newline="") as stream:
        return name in next(csv.reader(stream), ())


def _missing(videos: Iterable[str], root: Path) -> Iterator[str]:
    finder = VideoFinder(root)
    for video in dict.fromkeys(videos):
        if not finder.find(video).exists():
            yield video
