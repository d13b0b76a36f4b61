"""What there is to review: the videos of an annotation, their events, and what was decided."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distime.annotate.records import (
    AnnotationFolder,
    Described,
    Dropped,
    Located,
    RecordFile,
    Selected,
    SelectedEvent,
)
from distime.annotate.verdicts import Verdict, VerdictError, VerdictLog
from distime.errors import DisTimeError
from distime.files import read_json
from distime.processing.video import looks_like_video, open_video

WORST, FOLDER = "worst", "folder"
_SCORES = ("score", "agreement", "confidence", "similarity", "locator")


class ReviewError(DisTimeError):
    """There is nothing to review, or a request is wrong; the message says what."""


class Worklist:
    """An annotation as its reviewers see it.

    Kept in memory are the names of the videos, a few numbers for each, and the line numbers of
    dropped events.

    Args:
        folder: of the annotation.
        videos: folder of the videos, if they are no longer where they were.

    Raises:
        ReviewError: the folder of videos is not there, or no video was selected.
        AnnotationError, FileError: a file cannot be read.
    """

    def __init__(self, folder: Path, videos: Path | None = None):
        self.places = AnnotationFolder(folder)
        self.root = videos or Path(read_json(self.places.settings, "settings")[0]["videos"])
        if not self.root.is_dir():
            raise ReviewError(f"{self.root}: no such folder of videos; name it with --videos")
        self.log = VerdictLog(folder)
        self.log.verdicts()  # what cannot be read is said now
        self._described = RecordFile(self.places.events, Described)
        self._selected = RecordFile(self.places.selected, Selected)
        self._dropped = RecordFile(self.places.dropped, Dropped)
        self._lost: dict[str, list[int]] = {}
        for number, one in enumerate(self._dropped):
            self._lost.setdefault(one.video, []).append(number)
        self._locations = {
            path.name.removesuffix(".jsonl"): RecordFile(path, Located)
            for path in sorted(self.places.locations("x").parent.glob("*.jsonl"))
        }
        self._names = [one.video for one in self._described]
        self._counts = [len(one.events) for one in self._described]
        self._ids: dict[int, set[str]] = {}  # of videos that somebody has decided about
        agreement = {
            one.video: min(known)
            for one in self._selected
            if (known := [e.agreement for e in one.events if e.agreement is not None])
        }
        self._agreement = [agreement.get(name, math.inf) for name in self._names]
        if not any(self._counts):
            raise ReviewError(f"{self.places.events}: no event to review")

    # ------------------------------------------------------------------------------- asked for

    def page(self, order: str, only_open: bool, offset: int, count: int) -> dict[str, Any]:
        """Return a piece of the list of videos, and how far the whole is.

        Args:
            order: `WORST` agreement first, or that of the `FOLDER`.
            only_open: without videos whose every event is decided.
            offset: how many to leave out.
            count: how many to return at most.
        """
        verdicts = self.log.verdicts()
        done = [self._decided(n, verdicts.get(name, {})) for n, name in enumerate(self._names)]
        numbers = [n for n, count in enumerate(self._counts) if count]
        if order == WORST:
            numbers.sort(key=lambda n: (self._agreement[n], n))
        if only_open:
            numbers = [n for n in numbers if done[n] < self._counts[n]]
        rows = [
            {
                "number": n,
                "video": self._names[n],
                "events": self._counts[n],
                "decided": done[n],
                "agreement": _finite(self._agreement[n]),
            }
            for n in numbers[offset : offset + count]
        ]
        totals = {"events": sum(self._counts), "decided": sum(done), "total": len(numbers)}
        return {"videos": rows, **totals}

    def video(self, number: int) -> dict[str, Any]:
        """Return the events of a video, kept ones first, with what was decided about each.

        `origin` is when its first frame is shown, in seconds on the clock of players.
        """
        described = self._at(number)
        video, duration = described.video, described.duration
        verdicts = self.log.verdicts().get(video, {})
        known = {
            name: found.locations
            for name, file in self._locations.items()
            if (found := file.of_video(video)) is not None
        }
        events = []
        for one in self._events(video):
            windows = {n: found[one.id] for n, found in known.items() if one.id in found}
            event = {name: getattr(one, name) for name in ("id", "text", *_SCORES)}
            event["reason"] = one.reason if isinstance(one, Dropped) else ""
            event["candidates"] = {n: [window.start, window.end] for n, window in windows.items()}
            event["start"], event["end"] = _interval(one, duration)
            verdict = verdicts.get(one.id)
            events.append(event | {"verdict": None if verdict is None else verdict.to_dict()})
        try:
            path = self.path(number)
            with open_video(path) as reader:
                origin, trouble = reader.start, ""
        except DisTimeError as error:
            origin, trouble = 0.0, str(error)
        return {
            "number": number,
            "video": video,
            "duration": duration,
            "origin": origin,
            "trouble": trouble.replace(f"{self.root}/", ""),
            "events": events,
        }

    def decide(self, request: dict[str, Any]) -> Verdict:
        """Keep a decision.

        Args:
            request: `number` of the video, `id` of the event, `verdict`, `text`, `start` and `end`
                in seconds, `reviewer`, and `seen`: the number of the last decision its author saw.

        Raises:
            Outdated: somebody else decided meanwhile.
            ReviewError, VerdictError: the request is wrong.
        """
        values = {name: request.get(name) for name in ("id", "verdict", "text", "reviewer")}
        if not all(isinstance(value, str) for value in values.values()):
            raise ReviewError(f"{', '.join(values)} are texts")
        seen, times = request.get("seen"), [request.get("start"), request.get("end")]
        if type(seen) is not int or not all(type(time) in (int, float) for time in times):
            raise ReviewError("seen, start and end are numbers")
        if len(json.dumps(values)) > 20_000:
            raise VerdictError("these words are too long for an event")
        video = self._at(request.get("number"))
        if values["id"] not in {event.id for event in video.events}:
            raise ReviewError(f"{video.video} has no event {values['id']}")
        values["text"] = " ".join(values["text"].split())
        values |= {"start": round(times[0], 3), "end": min(round(times[1], 3), video.duration)}
        verdict = Verdict(video=video.video, duration=video.duration, **values)
        return self.log.add(verdict, seen)

    def path(self, number: int) -> Path:
        """Return the file of a video.

        Raises:
            ReviewError: it is not there, or no video below the folder.
        """
        name = Path(self._at(number).video)
        path = self.root / name
        if name.is_absolute() or ".." in name.parts:
            raise ReviewError(f"{name} does not lie below the folder of videos")
        if not path.exists():
            raise ReviewError(f"{name}: no such video")
        if path.is_file() and not looks_like_video(path):
            raise ReviewError(f"{name}: this is no video")
        return path

    # --------------------------------------------------------------------------------- records

    def _at(self, number: Any) -> Described:
        if type(number) is not int or not 0 <= number < len(self._described):
            raise ReviewError(f"there is no video {number}")
        return self._described[number]

    def _decided(self, number: int, verdicts: Mapping[str, Verdict]) -> int:
        """How many events of a video are decided; decisions about earlier events do not count."""
        if not verdicts:
            return 0
        if number not in self._ids:
            self._ids[number] = {event.id for event in self._described[number].events}
        return len(self._ids[number] & verdicts.keys())

    def _events(self, video: str) -> Iterator[SelectedEvent | Dropped]:
        """Yield the events of a video, those that were kept first."""
        selected = self._selected.of_video(video)
        yield from selected.events if selected else ()
        for number in self._lost.get(video, ()):
            yield self._dropped[number]


def _interval(event: SelectedEvent | Dropped, duration: float) -> tuple[float, float]:
    """When an event is; a dropped one has its best candidate, or where none is the whole video."""
    if isinstance(event, SelectedEvent):
        return event.start, event.end
    best = event.candidates.get(event.locator or "")
    return (best.start, best.end) if best else (0.0, duration)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
