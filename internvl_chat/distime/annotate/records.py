"""What the stages write and read: one JSON object per line and video, and where the files lie.

    DIR/settings.json           what was asked for, and the folder of the videos
    DIR/captions/NAME.jsonl     `Captioned`: what one captioner says
    DIR/events.jsonl            `Described`: the events of all captioners, without duplicates
    DIR/locations/NAME.jsonl    `Located`: when one locator finds them
    DIR/similarity.jsonl        `Compared`: how well the frames of each location fit the words
    DIR/selected.jsonl          `Selected`: the events that were kept, each with its best location
    DIR/dropped.jsonl           `Dropped`, one per line: the others, and why
    DIR/problems.jsonl          `Trouble`, one per line: what could not be used, and why
    DIR/journal/                the work of each process, so that a killed run goes on

Times are seconds from a video's first frame, as in training files. Videos are named by their paths
below the folder of videos. Files are read and written line by line: a million events are never in
memory together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from distime.data.lines import JsonlIndex
from distime.data.problems import AnnotationError, place_of, show
from distime.files import written_whole

R = TypeVar("R", bound="Record")


class Record:
    """A frozen dataclass that is one JSON object; None and empty values are left out of it."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {
            name: _plain(value)
            for name, value in values.items()
            if name in _needed(type(self)) or (value is not None and value != () and value != {})
        }

    @classmethod
    def from_dict(cls: type[R], values: Any) -> R:
        """Rebuild a record.

        Raises:
            AnnotationError: a key is missing, unknown, or of another kind; names no line.
        """
        if not isinstance(values, dict):
            raise AnnotationError(f"expected an object, found {show(values)}")
        hints, needed = _hints(cls), _needed(cls)
        for name in values:
            if name not in hints:
                raise AnnotationError(f'unknown key "{name}": known are {", ".join(hints)}')
        for name in needed:
            if name not in values:
                raise AnnotationError(f'the key "{name}" is missing')
        return cls(**{n: _read(hints[n], v, f'"{n}"') for n, v in values.items()})


# ------------------------------------------------------------------ what the stages say


@dataclass(frozen=True)
class Location(Record):
    """When something happens.

    Attributes:
        start: seconds.
        end: seconds, not before `start`.
        confidence: of the locator in itself, 0 to 1; None where it names none.
    """

    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Caption(Record):
    """What a captioner says, and when, where it says so."""

    text: str
    location: Location | None = None


@dataclass(frozen=True)
class Captioned(Record):
    """What one captioner says about a video of `duration` seconds."""

    video: str
    duration: float
    captions: tuple[Caption, ...] = ()


@dataclass(frozen=True)
class EventText(Record):
    """One event in words.

    Attributes:
        id: unique in the folder; it changes when the events of its video do.
        text: the words.
        sources: names of the captioners that told of it.
        merged: other words for it, which were taken as duplicates.
        locations: when it is, by the captioners that said so.
    """

    id: str
    text: str
    sources: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    locations: Mapping[str, Location] = field(default_factory=dict)


@dataclass(frozen=True)
class Described(Record):
    """The events of one video of `duration` seconds."""

    video: str
    duration: float
    events: tuple[EventText, ...] = ()


@dataclass(frozen=True)
class Located(Record):
    """When one locator finds the events of a video, by their ids; some may be missing."""

    video: str
    locations: Mapping[str, Location] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared(Record):
    """How well frames fit words: by event id, for each locator, 0 to 1 (see `similarity`)."""

    video: str
    similarities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SelectedEvent(Record):
    """An event that was kept.

    Attributes:
        id, text: of the event.
        start, end: seconds, the best location.
        score: 0 to 1, by which it is the best.
        agreement: mean IoU over all pairs of locators; None with a single one.
        confidence: of the locator whose location it is, where it names one.
        similarity: of the location's frames to the words, where it was computed.
        locator: whose location it is.
    """

    id: str
    text: str
    start: float
    end: float
    score: float
    locator: str
    agreement: float | None = None
    confidence: float | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Selected(Record):
    """The events of a video of `duration` seconds that were kept, in the order of events."""

    video: str
    duration: float
    events: tuple[SelectedEvent, ...] = ()


@dataclass(frozen=True)
class Candidate(Record):
    """A location of one locator, with what speaks for it; see `SelectedEvent`."""

    start: float
    end: float
    score: float
    consensus: float | None = None
    confidence: float | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Dropped(Record):
    """An event that was not kept.

    Attributes:
        video, id, text: of the event.
        reason: why, each threshold that it misses.
        score, agreement, confidence, similarity, locator: of the best location; see
            `SelectedEvent`.
        candidates: all locations, by locator.
    """

    video: str
    id: str
    text: str
    reason: str
    score: float | None = None
    agreement: float | None = None
    confidence: float | None = None
    similarity: float | None = None
    locator: str | None = None
    candidates: Mapping[str, Candidate] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble(Record):
    """What could not be used.

    Attributes:
        video: whose; None where no one video is to blame.
        stage: "events", "locations", "similarity", ...
        by: the captioner or locator.
        why: what is wrong, and the mend.
        fatal: whether the video is lost to this stage, or only something of it.
    """

    video: str | None
    stage: str
    by: str
    why: str
    fatal: bool = True


# ------------------------------------------------------------------ files of them


class RecordFile(Generic[R]):
    """A file of records that is read one line at a time, in order or by video.

    Only offsets are kept in memory, and once `of_video` is asked, the names of the videos.

    Raises:
        AnnotationError: there is no such file, or it is no JSON lines file.
    """

    def __init__(self, path: Path, kind: type[R]):
        self.path, self.kind = path, kind
        self._index = JsonlIndex(path)
        self._by_video: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> R:
        """Return the record of a line, counted from 0.

        Raises:
            AnnotationError: the line is no such record; names file and line.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._record(number, self._index.record(number))

    def __iter__(self) -> Iterator[R]:
        for number, values in enumerate(self._index.records(range(len(self)))):
            if isinstance(values, AnnotationError):
                raise values
            yield self._record(number, values)

    def of_video(self, video: str) -> R | None:
        """Return the record of a video; None where there is none."""
        if self._by_video is None:
            self._by_video = {one.video: number for number, one in enumerate(self)}
        number = self._by_video.get(video)
        return None if number is None else self[number]

    def _record(self, number: int, values: Any) -> R:
        try:
            return self.kind.from_dict(values)
        except AnnotationError as error:
            place = place_of(self.path, self._index.line_number(number))
            raise AnnotationError(f"{place}: {error}") from None


@contextlib.contextmanager
def record_writer(path: Path) -> Iterator[Callable[[Record], None]]:
    """Give a function that writes a record; the file is there when the block ends without error.

    A reader sees the old file or the whole new one.
    """
    with written_whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield lambda record: file.write(json.dumps(record.to_dict(), ensure_ascii=False) + "\n")


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as they come, see `record_writer`; return how many."""
    count = 0
    with record_writer(path) as write:
        for record in records:
            write(record)
            count += 1
    return count


@dataclass(frozen=True)
class AnnotationFolder:
    """Where the files of a run lie."""

    root: Path

    @property
    def settings(self) -> Path:
        """What was asked for: `{"videos": folder, ...}`."""
        return self.root / "settings.json"

    @property
    def events(self) -> Path:
        """A file of `Described`."""
        return self.root / "events.jsonl"

    @property
    def similarity(self) -> Path:
        """A file of `Compared`."""
        return self.root / "similarity.jsonl"

    @property
    def selected(self) -> Path:
        """A file of `Selected`."""
        return self.root / "selected.jsonl"

    @property
    def dropped(self) -> Path:
        """A file of `Dropped`."""
        return self.root / "dropped.jsonl"

    @property
    def problems(self) -> Path:
        """A file of `Trouble`."""
        return self.root / "problems.jsonl"

    @property
    def journal(self) -> Path:
        """A folder: the work of each process."""
        return self.root / "journal"

    @property
    def cache(self) -> Path:
        """A folder: answers of endpoints."""
        return self.root / "cache"

    def captions(self, captioner: str) -> Path:
        """A file of `Captioned`."""
        return self.root / "captions" / f"{captioner}.jsonl"

    def locations(self, locator: str) -> Path:
        """A file of `Located`."""
        return self.root / "locations" / f"{locator}.jsonl"


# ------------------------------------------------------------------ JSON of dataclasses


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in dataclasses.fields(kind)}


@cache
def _needed(kind: type) -> tuple[str, ...]:
    return tuple(
        one.name
        for one in dataclasses.fields(kind)
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    )


def _read(hint: Any, value: Any, what: str) -> Any:
    """Return a JSON value as the type of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        return None if value is None else _read(inner, value, what)
    if origin is tuple:
        return tuple(_read(arguments[0], one, what) for one in _expect(list, value, what))
    if origin is not None:  # a mapping of names
        items = _expect(dict, value, what).items()
        return {key: _read(arguments[1], one, what) for key, one in items}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_dict(value)
    if hint is float:
        return float(_expect(int | float, value, what))
    return _expect(hint, value, what)


_WORDS = {list: "a list", dict: "an object", str: "text", bool: "true or false"}


def _expect(kind: Any, value: Any, what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise AnnotationError(f"{what} is {show(value)}: give {_WORDS.get(kind, 'a number')}")
    return value
