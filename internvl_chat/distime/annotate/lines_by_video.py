"""A JSON lines file of one's own about videos: checked once, then read video by video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from distime.annotate.records import Trouble
from distime.benchmarks.base import SettingsError
from distime.data.lines import JsonlIndex
from distime.data.problems import AnnotationError, is_number, place_of, show
from distime.data.video_finder import without_suffix
from distime.files import file_digest

T = TypeVar("T")


class LinesByVideo(Generic[T]):
    """Lines that name a `"video"`: its path below the folder of videos, or its bare name.

    Only the numbers of the lines are kept in memory.

    Args:
        flag: names the file in messages, such as "--captioner file:captions.jsonl".
        path: of the file.
        read: reads the JSON object of a line; raises `AnnotationError` that names no line.

    Raises:
        SettingsError: there is no such file.
    """

    def __init__(self, flag: str, path: Path, read: Callable[[dict[str, Any]], T]):
        if not path.is_file():
            raise SettingsError(f"{flag}: no such file; give a file of JSON lines")
        self.flag, self.path, self.read = flag, path, read
        self._index = JsonlIndex(path)
        self._lines: dict[str, list[int]] = {}

    def fit(self, videos: Sequence[str]) -> list[tuple[str, str]]:
        """Read the whole file once and find the videos of its lines.

        Returns:
            the videos that are not there, each once, with the place of its first line.

        Raises:
            AnnotationError: lines are wrong; names the first, and how many there are.
            SettingsError: not one line is about one of the videos.
        """
        known = _names(videos)
        strange: dict[str, str] = {}
        wrong: list[str] = []
        self._lines = {}
        for number, values in enumerate(self._index.records(range(len(self._index)))):
            try:
                name = _video_of(values)
                self.read(values)
            except AnnotationError as error:
                wrong.append(
                    f"{self._place(number)}: {error}" if error is not values else str(error)
                )
                continue
            if name in known:
                self._lines.setdefault(known[name], []).append(number)
            elif name not in strange:
                strange[name] = self._place(number)
        if wrong:
            more = f" ({len(wrong)} lines of the file are wrong)" if len(wrong) > 1 else ""
            raise AnnotationError(wrong[0] + more)
        if not self._lines:
            first = next(iter(strange.items()), None)
            said = f"{first[1]} is about {show(first[0])}" if first else "it holds no line"
            raise SettingsError(
                f"{self.flag}: it is about other videos: {said}; the videos are named like "
                f"{show(videos[0])}, their paths below the folder of videos"
            )
        return list(strange.items())

    def of(self, video: str) -> Iterator[tuple[str, T]]:
        """Yield what the lines about a video say, each behind its place."""
        numbers = self._lines.get(video, ())
        for number, values in zip(numbers, self._index.records(numbers), strict=True):
            yield self._place(number), self.read(values)

    @property
    def videos(self) -> list[str]:
        """The videos that the file is about and that are there."""
        return list(self._lines)

    def _place(self, number: int) -> str:
        return place_of(self.path, self._index.line_number(number))


class ToldByFile:
    """What captioners and locators that go by a file share; stands before `Annotator` in the bases.

    Attributes:
        lines: of the file.
    """

    stage: ClassVar[str]
    name: str
    lines: LinesByVideo

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`."""
        return {"file": file_digest(self.lines.path)}

    def troubles(self, videos: Sequence[str]) -> Iterator[Trouble]:
        """See `Annotator.troubles`."""
        for video, place in self.lines.fit(videos):
            why = f"{place}: {show(video)} is not below the folder of videos"
            yield Trouble(None, self.stage, self.name, why, fatal=False)


def _video_of(values: Any) -> str:
    if isinstance(values, AnnotationError):
        raise values
    if not isinstance(values, dict):
        raise AnnotationError(f'expected an object with "video", found {show(values)}')
    name = values.get("video")
    if not isinstance(name, str) or not name:
        raise AnnotationError(f'"video" is {show(name)}: give the path of a video')
    return name.removeprefix("./")


def _names(videos: Sequence[str]) -> dict[str, str]:
    """What videos may be called: by path or file name, with suffix or without, if that is clear."""
    known: dict[str, str | None] = {}
    for way in (lambda n: Path(n).name, lambda n: without_suffix(Path(n).name), without_suffix):
        for video in videos:
            name = way(video)
            known[name] = None if known.get(name, video) != video else video
    known |= {video: video for video in videos}
    return {name: video for name, video in known.items() if video is not None}


def times_of(values: dict[str, Any]) -> tuple[float, float]:
    """Return "start" and "end" of an object, in seconds.

    Raises:
        AnnotationError: they are no interval; says the mend.
    """
    start, end = values.get("start"), values.get("end")
    if not is_number(start) or not is_number(end):
        raise AnnotationError(
            f'"start" is {show(start)}, "end" {show(end)}: give two numbers in seconds'
        )
    if start < 0:
        raise AnnotationError(
            f"interval [{start}, {end}] is negative: times count from the video's start"
        )
    if end < start:
        raise AnnotationError(f"interval [{start}, {end}] ends before it starts: swap the two")
    if end == start:
        raise AnnotationError(f"interval [{start}, {end}] has no length: correct or remove it")
    return float(start), float(end)


def confidence_of(values: dict[str, Any]) -> float | None:
    """Return "confidence" of an object, where it has one.

    Raises:
        AnnotationError: it is no number from 0 to 1.
    """
    confidence = values.get("confidence")
    if confidence is None:
        return None
    if not is_number(confidence) or not 0 <= confidence <= 1:
        raise AnnotationError(
            f'"confidence" is {show(confidence)}: give a number from 0 to 1, or leave it out'
        )
    return float(confidence)
