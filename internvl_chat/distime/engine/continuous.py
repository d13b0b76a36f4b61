"""One run of the engine: which jobs wait, which are being answered, and when each enters."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distime.engine.batch import Row
from distime.engine.decoding import EngineError
from distime.engine.jobs import Finished, Job, JobSource
from distime.engine.loader import Loader
from distime.model.generation import SharedPrefix
from distime.processing.answers import Answer
from distime.processing.processor import PrefixInputs

if TYPE_CHECKING:
    from distime.engine.engine import Engine


@dataclass(eq=False)
class _Open:
    """A job whose inputs are there and whose answers are not all."""

    job: Job
    inputs: PrefixInputs
    suffixes: list[list[int]]
    answers: list[list[Answer | None]]
    missing: int
    ran_away: int = 0


@dataclass(frozen=True)
class _Tag:
    """Which answer a row is."""

    owner: _Open
    question: int
    sample: int


class Run:
    """The jobs of one call: which wait, which are being answered."""

    def __init__(self, engine: Engine, source: JobSource):
        self.engine, self.batch = engine, engine.batch()
        self.loader = Loader(source, engine.workers)
        self.waiting: deque[_Tag] = deque()  # answers that have not entered, in order
        self.prefix: tuple[_Open, SharedPrefix] | None = None  # of the job that enters now
        self.group: int | None = None  # of the job that entered last
        self.ready: deque[Finished] = deque()

    def finished(self) -> Iterator[Finished]:
        """Answer all jobs of the source, each given back at its end."""
        while True:
            self._let_in()
            yield from self._take_ready()
            if not self.batch.rows:
                if not self.waiting and self.loader.is_done:
                    return
                continue
            with self.engine.timed("answer"):
                ended = self.batch.choose()
                self._report()
                cancelled = [row for row in self.batch.rows if row.tag.owner.job.cancelled]
                gone = list(dict.fromkeys([*ended, *cancelled]))
                self.batch.leave(gone)
                for row in gone:
                    self._end(row.tag, row if row in ended else None)
                for row in reversed(self.batch.feed()):
                    self._begin_again(row)
            yield from self._take_ready()

    def _take_ready(self) -> Iterator[Finished]:
        while self.ready:
            yield self.ready.popleft()

    # ------------------------------------------------------------------ entering

    def _let_in(self) -> None:
        """Let answers enter while there is room; open another job when none waits."""
        while True:
            if not self.waiting and not self._open():
                return
            if not self.waiting:
                continue
            owner = self.waiting[0].owner
            together = [tag for tag in self.waiting if tag.owner is owner]
            if owner.job.cancelled:
                for tag in together:
                    self.waiting.remove(tag)
                    self._end(tag, None)
                continue
            length = owner.inputs.prefix["input_ids"].shape[1]
            count = self.batch.room(length, [owner.suffixes[tag.question] for tag in together])
            if count == 0:
                return
            prefix = self._prefix_of(owner)
            rows = [self._row(self.waiting.popleft()) for _ in range(count)]
            with self.engine.timed("answer"):
                if self.engine.can_stack(prefix):
                    self.batch.enter(prefix, rows)
                else:
                    self.engine.generate_alone(prefix, rows)
                    for row in rows:
                        self._end(row.tag, row)
            if not self.waiting or self.waiting[0].owner is not owner:
                self.prefix = None  # its memory goes to those that come

    def _open(self) -> bool:
        """Take the next job whose inputs are there; say whether there was one."""
        wait = not self.batch.rows and not self.ready
        following = self.loader.following()
        if following is not None and following.group is not None:
            if self.batch.rows and following.group != self.group:
                return False
            # When a job enters must not depend on how fast it was loaded.
            wait = len(self.batch.rows) < self.engine.max_rows
        started = time.perf_counter()
        taken = self.loader.take(wait)
        if wait:
            self.engine.seconds["wait_for_videos"] += time.perf_counter() - started
        if taken is None:
            return False
        job, future = taken
        if (error := future.exception()) is not None:
            self.ready.append(Finished(job, error=error))
            return True
        if job.group != self.group:
            self.group = job.group
            self.batch.forget()
        inputs = future.result()
        suffixes = inputs.suffix_ids()
        answers = [[None] * job.samples for _ in suffixes]
        owner = _Open(job, inputs, suffixes, answers, len(suffixes) * job.samples)
        for question in range(len(suffixes)):
            self.waiting += [_Tag(owner, question, sample) for sample in range(job.samples)]
        if not suffixes:
            self.ready.append(Finished(job))
        return True

    def _prefix_of(self, owner: _Open) -> SharedPrefix:
        if self.prefix is None or self.prefix[0] is not owner:
            self.prefix = None
            self.prefix = owner, self.engine.encode(owner.inputs)
        return self.prefix[1]

    def _row(self, tag: _Tag) -> Row:
        decoding = tag.owner.job.decoding
        number = tag.question * tag.owner.job.samples + tag.sample
        generator = decoding.generator(number, self.engine.model.device)
        times = tag.owner.inputs.suffix_times
        given = None if times is None else times[tag.question]
        return Row(tag, tag.owner.suffixes[tag.question], decoding, generator, given)

    def _begin_again(self, row: Row) -> None:
        """Let a row that had no room wait at the front; it will be the same answer."""
        self.waiting.appendleft(row.tag)
        if (listener := row.tag.owner.job.on_token) is not None:
            listener(row.tag.question, row.tag.sample, (), ())

    # ------------------------------------------------------------------ ending

    def _report(self) -> None:
        for row in self.batch.rows:
            if (listener := row.tag.owner.job.on_token) is not None:
                listener(row.tag.question, row.tag.sample, row.ids, row.intervals)

    def _end(self, tag: _Tag, row: Row | None) -> None:
        """Keep an answer; None for one that was cancelled. The last one finishes the job."""
        owner = tag.owner
        if owner.missing == 0:
            return  # its error was reported
        if row is not None:
            try:
                answer = self.engine.read(row, owner.inputs.duration)
            except EngineError as error:
                owner.missing = 0
                owner.job.cancel()
                self.ready.append(Finished(owner.job, error=error))
                return
            owner.answers[tag.question][tag.sample] = answer
            owner.ran_away += row.ran_away
        owner.missing -= 1
        if owner.missing == 0:
            self.ready.append(Finished(owner.job, owner.answers, ran_away=owner.ran_away))
