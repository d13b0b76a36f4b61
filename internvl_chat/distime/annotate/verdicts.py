"""What people decided about events: `reviewed.jsonl`, one line for each decision.

Lines are only ever added, under a lock, each in one piece; of several about one event the last one
counts. A line that a kill cut short was never confirmed to its author, and is as if never written.
Who decides names what they had seen, so that two people at once, also in two processes, never undo
each other's work without knowing.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from distime.annotate.records import Record, SelectedEvent
from distime.data.lines import parse_json
from distime.errors import DisTimeError
from distime.files import FileError

logger = logging.getLogger(__name__)

REVIEWED = "reviewed.jsonl"
ACCEPTED, CORRECTED, REJECTED = "accepted", "corrected", "rejected"


class VerdictError(DisTimeError):
    """A decision that cannot be kept; the message says why."""


class Outdated(VerdictError):
    """Somebody else decided meanwhile; `verdict` is what they decided."""

    def __init__(self, verdict: Verdict):
        who = verdict.reviewer or "somebody else"
        super().__init__(f"{who} has {verdict.verdict} this event meanwhile; look at it again")
        self.verdict = verdict


@dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """What a person decided about an event.

    Attributes:
        video: path below the folder of videos.
        id: of the event.
        verdict: `ACCEPTED`, `CORRECTED` or `REJECTED`.
        text: the event's words, as they shall be.
        start: seconds, as it shall be.
        end: seconds.
        duration: of the video in seconds.
        reviewer: who it was, if they said so.
        at: when, in UTC.
        number: how many decisions about the event there were before, and this one.
    """

    video: str
    id: str
    verdict: str
    text: str
    start: float
    end: float
    duration: float
    reviewer: str = ""
    at: str = ""
    number: int = 1

    def check(self) -> None:
        """Refuse what no event can be.

        Raises:
            VerdictError: says what.
        """
        if self.verdict not in (ACCEPTED, CORRECTED, REJECTED):
            raise VerdictError(f"an event is {ACCEPTED}, {CORRECTED} or {REJECTED}")
        if self.verdict == REJECTED:
            return
        if not all(map(math.isfinite, (self.start, self.end, self.duration))):
            raise VerdictError("start and end are finite numbers, in seconds")
        if not 0 <= self.start < self.end <= self.duration:
            raise VerdictError(
                f"{self.start:g} - {self.end:g} s: an event begins before it ends, within the "
                f"video's {self.duration:g} s"
            )
        if not self.text.strip():
            raise VerdictError("an event has words: write what happens")


class VerdictLog:
    """The decisions of one annotation, in a file that any number of processes share.

    Args:
        folder: of the annotation.
    """

    def __init__(self, folder: Path):
        self.path = folder / REVIEWED
        self._verdicts: dict[str, dict[str, Verdict]] = {}
        self._read, self._lines = 0, 0
        self._lock = threading.Lock()

    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """Return what holds now, by video and by event.

        Raises:
            FileError: a line is no decision.
        """
        with self._lock:
            if self.path.exists():
                with self.path.open("rb") as file:
                    self._catch_up(file)
            return {video: dict(some) for video, some in self._verdicts.items()}

    def add(self, verdict: Verdict, seen: int) -> Verdict:
        """Write a decision, on the disk when this returns.

        Args:
            verdict: what was decided; `at` and `number` are filled in.
            seen: `number` of the last decision that its author knew of, 0 for none.

        Returns:
            the decision as it is written.

        Raises:
            Outdated: there is a later one.
            VerdictError: it is none.
            FileError: the file cannot be read or written.
        """
        verdict.check()
        with self._lock, self._locked() as file:
            self._catch_up(file)
            last = self._verdicts.get(verdict.video, {}).get(verdict.id)
            if last is not None and last.number != seen:
                raise Outdated(last)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            verdict = replace(verdict, at=now, number=seen + 1)
            line = (
                json.dumps(verdict.to_dict(), ensure_ascii=False).encode(errors="replace") + b"\n"
            )
            file.truncate(self._read)  # what a kill left unfinished
            file.seek(self._read)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._catch_up(file)
        return verdict

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        try:
            self.path.touch()
            with self.path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except OSError as error:
            raise FileError(f"{self.path}: cannot be written ({error.strerror}).") from None

    def _catch_up(self, file: Any) -> None:
        file.seek(self._read)
        *lines, torn = file.read().split(b"\n")
        if torn:
            logger.debug("%s: its last line is not finished", self.path)
        for line in lines:
            self._lines += 1
            self._read += len(line) + 1
            if line.strip():
                verdict = _verdict(line, f"{self.path}:{self._lines}")
                self._verdicts.setdefault(verdict.video, {})[verdict.id] = verdict


def _verdict(line: bytes, place: str) -> Verdict:
    try:
        verdict = Verdict.from_dict(parse_json(line))
        verdict.check()
    except DisTimeError as error:
        raise FileError(f"{place}: {error}; mend or remove the line.") from None
    return verdict


class TimedEvent(NamedTuple):
    """An event as it shall be trained: its words, and when it is in seconds."""

    id: str
    text: str
    start: float
    end: float


def decided(events: Iterable[SelectedEvent], verdicts: Mapping[str, Verdict]) -> list[TimedEvent]:
    """Return what becomes of a video's events by what people decided about them.

    Args:
        events: that the selection kept.
        verdicts: by event. Those of events that it dropped bring them back, unless rejected.
    """
    kept = {one.id: TimedEvent(one.id, one.text, one.start, one.end) for one in events}
    for name, one in verdicts.items():
        if one.verdict == REJECTED:
            kept.pop(name, None)
        else:
            kept[name] = TimedEvent(name, one.text, one.start, one.end)
    return list(kept.values())
