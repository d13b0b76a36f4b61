"""One annotator looks at every video: on all processes, killed and resumed, to one file of records.

Each process keeps what it found in the journal of the pass; when all is done, the first one writes
the records in the order of the videos. Videos that failed are tried again by the next run.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from distime.annotate.annotator import Annotator, Clip
from distime.annotate.records import AnnotationFolder, RecordFile, Trouble, write_records
from distime.errors import DisTimeError
from distime.evaluate.line_journal import LineJournal, Spot
from distime.evaluate.processes import Processes, joined_processes
from distime.evaluate.runner import choose_device, taken
from distime.progress import progress

T = TypeVar("T")
logger = logging.getLogger(__name__)


class NothingLeftError(DisTimeError):
    """A stage has nothing that the next one could use; the message says why."""


@dataclass(frozen=True)
class Tally:
    """What became of the videos of a pass.

    Attributes:
        by: the annotator.
        videos: all of them.
        before: done by earlier runs.
        failed: could not be used.
        noted: were used though something of them was lost.
        reason: why the first of those that failed did.
        seconds: that the videos of this run took, models loaded, on the clock and of all CPU cores.
    """

    by: str
    videos: int
    before: int
    failed: int
    noted: int
    reason: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)

    def __str__(self) -> str:
        parts = [f"{self.videos} videos"]
        parts += [f"{self.before} of them before"] * bool(self.before)
        parts += [f"{self.failed} failed"] * bool(self.failed)
        parts += [f"{self.noted} with remarks"] * bool(self.noted)
        if looked := self.videos - self.before:
            wall, cpu = (seconds / looked for seconds in self.seconds)
            parts.append(f"{wall:.3g} s a video, {cpu:.3g} s of CPU")
        return f"{self.by}: {', '.join(parts)}"


@dataclass(frozen=True)
class Pass:
    """The work of one annotator.

    Attributes:
        annotator: who looks.
        folder: of the run.
        out: where the records go.
        videos: names, in order.
        keys: for each video, which changes with anything that is asked about it.
        clip: returns a video by its number.
        troubles: of the annotator beside its outcomes.
    """

    annotator: Annotator
    folder: AnnotationFolder
    out: Path
    videos: Sequence[str]
    keys: Sequence[str]
    clip: Callable[[int], Clip]
    troubles: Sequence[Trouble] = ()

    def run(self) -> Tally:
        """Look at what has not been looked at; the first process writes the records.

        Every process calls this and gets the same tally.

        Raises:
            SettingsError: the journal is of other settings.
        """
        annotator = self.annotator
        settings = annotator.settings
        journal = LineJournal(
            self.folder.journal / annotator.stage / annotator.name,
            "process",
            annotator.fingerprint(),
            f"--out {self.folder.root}",
        )
        with joined_processes() as processes:
            if processes.is_first and settings.overwrite:
                journal.clear()
            done = processes.share(_done(journal) if processes.is_first else None)
            todo = [number for number, key in enumerate(self.keys) if key not in done]
            spent = self._look(todo, journal, processes) if todo else (0.0, 0.0)
            # All have written what the first one reads now.
            walls, cpus = zip(*processes.gather(spent), strict=True)
            tally = None
            if processes.is_first:
                tally = self._write(journal, len(self.keys) - len(todo), (max(walls), sum(cpus)))
            return processes.share(tally)

    def _look(
        self, todo: Sequence[int], journal: LineJournal, processes: Processes
    ) -> tuple[float, float]:
        """Return the seconds that it took, on the clock and of the CPU."""
        annotator = self.annotator
        annotator.open(choose_device(annotator.settings.device, processes.local_rank))
        wall, cpu = time.perf_counter(), time.process_time()
        clips = (self.clip(todo[place]) for place in taken(processes, len(todo)))
        what = f"{annotator.stage} by {annotator.name}"
        with progress(
            total=len(todo), unit="video", desc=what, disable=not processes.is_first
        ) as bar:
            for outcome in annotator.outcomes(clips):
                line = {"key": self.keys[outcome.number], "video": self.videos[outcome.number]}
                if outcome.record is not None:
                    line["record"] = outcome.record.to_dict()
                journal.append(line | ({"notes": outcome.notes} if outcome.notes else {}))
                bar.update(processes.add_answered(1) - bar.n)
        journal.close()
        annotator.close()
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
        return time.perf_counter() - wall, time.process_time() - cpu

    def _write(self, journal: LineJournal, before: int, seconds: tuple[float, float]) -> Tally:
        found: dict[str, Spot] = {}
        failed: dict[str, Spot] = {}
        for spot, line in journal.lines():
            (found if "record" in line else failed)[line["key"]] = spot
        if missing := [key for key in self.keys if key not in found and key not in failed]:
            raise RuntimeError(f"{self.annotator.name} said nothing of {len(missing)} videos")
        kind = self.annotator.record
        records = (kind.from_dict(found[key].read()["record"]) for key in self.keys if key in found)
        write_records(self.out, records)
        lost = [key for key in self.keys if key not in found]
        noted = 0

        def troubles() -> Iterator[Trouble]:
            nonlocal noted
            yield from self.troubles
            for key, video in zip(self.keys, self.videos, strict=True):
                is_lost = key not in found
                notes = (failed if is_lost else found)[key].read().get("notes", ())
                noted += bool(notes) and not is_lost
                for why in notes:
                    yield self._trouble(video, why, is_lost)

        replace_troubles(self.folder, self.annotator.stage, self.annotator.name, troubles())
        reason = failed[lost[0]].read()["notes"][0] if lost else ""
        name = self.annotator.name
        return Tally(name, len(self.keys), before, len(lost), noted, reason, seconds)

    def _trouble(self, video: str, why: str, fatal: bool) -> Trouble:
        return Trouble(video, self.annotator.stage, self.annotator.name, why, fatal)


def expect_some(stage: str, tallies: Sequence[Tally]) -> None:
    """Stop after a stage in which no annotator could use any video.

    Raises:
        NothingLeftError: it is so; says why of the first one.
    """
    if tallies and all(one.failed == one.videos for one in tallies):
        first = tallies[0]
        raise NothingLeftError(
            f"{stage} by {first.by}: not one of {first.videos} videos could be used, first: "
            f"{first.reason}"
        )


def forget_others(folder: AnnotationFolder, stage: str, names: Sequence[str]) -> None:
    """Forget the problems of a stage by annotators that no longer take part."""
    if folder.problems.is_file():
        known = RecordFile(folder.problems, Trouble)
        kept = (one for one in known if one.stage != stage or one.by in names)
        write_records(folder.problems, kept)


def by_the_first(work: Callable[[], T]) -> T:
    """Let the first process do something; every process gets what it returns."""
    with joined_processes() as processes:
        return processes.share(work() if processes.is_first else None)


def _done(journal: LineJournal) -> set[str]:
    return {line["key"] for _, line in journal.lines() if "record" in line}


def replace_troubles(
    folder: AnnotationFolder, stage: str, by: str, troubles: Iterator[Trouble]
) -> None:
    """Put the problems of one annotator in the place of those that it had before."""

    def all_of_them() -> Iterator[Trouble]:
        if folder.problems.is_file():
            for one in RecordFile(folder.problems, Trouble):
                if (one.stage, one.by) != (stage, by):
                    yield one
        yield from troubles

    write_records(folder.problems, all_of_them())
