"""Answers to questions about any number of videos, from files to words and seconds.

A job is one video with its questions. Its inputs are prepared in a background thread; the video is
encoded once, as soon as there is room; its questions join the rows that are being decoded and leave
one by one. Each gets the answer that it would get alone.

    engine = Engine(model, processor)
    for finished in engine.run(Job(lambda: processor.shared_prefix("a.mp4", ["What happens?"]))):
        print(finished.answers)
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import torch

from distime.engine.batch import Batch, Row
from distime.engine.sampling import Decoding, EngineError
from distime.engine.slots import Slots
from distime.model.generation import SharedPrefix
from distime.processing.answers import Answer, read_answer
from distime.processing.processor import DisTimeProcessor, PrefixInputs

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One video and its questions.

    Attributes:
        load: prepares the inputs; runs in a background thread. What it raises ends this job alone.
        decoding: how every answer is decoded.
        samples: answers to each question; more than one with `do_sample` alone.
        tag: whatever the caller wants to find again.
        group: jobs that follow one another with the same group are decoded among themselves alone
            and enter in order, whichever is loaded first. What shares a batch changes the last bit
            of a number; so a group's answers are the same, bit for bit, whenever it is answered.
        on_token: called as `(question, sample, ids, intervals)` after each token of an answer,
            with all its ids and normalised intervals so far; ids shrink to none where an answer
            had to be begun again.

    Raises:
        EngineError: several samples of the likeliest answer, which are all the same.
    """

    load: Callable[[], PrefixInputs]
    decoding: Decoding = field(default_factory=Decoding)
    samples: int = 1
    tag: Any = None
    group: int | None = None
    on_token: Callable[[int, int, Sequence[int], Sequence[torch.Tensor]], None] | None = None
    cancelled: bool = field(default=False, init=False)

    def __post_init__(self):
        if self.samples < 1 or (self.samples > 1 and not self.decoding.do_sample):
            raise EngineError(
                f"{self.samples} samples: give at least 1, and do_sample=True for more than one"
            )
        if self.decoding.seed is None:  # fixed now: an answer that is begun again must be the same
            self.decoding = replace(self.decoding, seed=random.getrandbits(32))

    def cancel(self) -> None:
        """Answer nothing more of this job; it comes back finished, with what it has, soon."""
        self.cancelled = True


@dataclass(frozen=True)
class Finished:
    """A job at its end.

    Attributes:
        job: as it was given.
        answers: per question its samples; None for what was cancelled. Empty after an error.
        error: what its loading raised, or why its answers cannot be used.
    """

    job: Job
    answers: Sequence[Sequence[Answer | None]] = ()
    error: Exception | None = None

    def first_answers(self) -> list[Answer]:
        """Return the one answer to every question.

        Raises:
            Exception: the job's error.
        """
        if self.error is not None:
            raise self.error
        return [samples[0] for samples in self.answers]


class Source(Protocol):
    """Where jobs come from."""

    def get(self, wait: bool) -> Job | None:
        """Return the next job; None if there is none now, or, having waited, none any more."""


class _Given:
    """Jobs of an iterable, each taken when it is needed."""

    def __init__(self, jobs: Iterable[Job]):
        self.jobs = iter(jobs)

    def get(self, wait: bool) -> Job | None:
        return next(self.jobs, None)


@dataclass(eq=False)
class _Open:
    """A job whose inputs are there and whose answers are not all."""

    job: Job
    inputs: PrefixInputs
    suffixes: list[list[int]]
    answers: list[list[Answer | None]]
    missing: int


@dataclass(frozen=True)
class _Tag:
    """Which answer a row is."""

    owner: _Open
    question: int
    sample: int


class Engine:
    """A model with its processor that answers jobs.

    Args:
        model: on the device it is to run on.
        processor: of the same checkpoint; raises ProcessorError where it is not.
        max_rows: most answers that are decoded at once.
        max_batch_tokens: most tokens that keys and values are kept for, whatever the data; one
            answer that needs more is decoded alone.
        workers: background threads that prepare inputs, and jobs that they are ahead.

    Attributes:
        seconds: spent so far, by kind of work: `wait_for_videos`, `encode_videos`, `answer`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor: DisTimeProcessor,
        *,
        max_rows: int = 16,
        max_batch_tokens: int = 131_072,
        workers: int = 2,
    ):
        for name, value in (
            ("max_rows", max_rows),
            ("max_batch_tokens", max_batch_tokens),
            ("workers", workers),
        ):
            if value < 1:
                raise EngineError(f"{name} is {value}: give at least 1")
        processor.check_model(model.config)
        self.model, self.processor = model.eval(), processor
        self.max_rows, self.max_batch_tokens, self.workers = max_rows, max_batch_tokens, workers
        self.seconds: Counter[str] = Counter()
        self._warned = False

    def run(self, jobs: Iterable[Job] | Job | Source) -> Iterator[Finished]:
        """Answer jobs; each comes back when its last answer is there, so in any order.

        Jobs are taken from the iterable as they are needed, `workers` ahead. An exception of the
        model itself is raised here; what a job's loading raises comes back with the job.
        """
        if isinstance(jobs, Job):
            jobs = [jobs]
        source = jobs if hasattr(jobs, "get") else _Given(jobs)
        run = _Run(self, source)
        try:
            yield from run.finished()
        finally:
            run.loader.close()

    def answer(self, inputs: PrefixInputs, decoding: Decoding | None = None) -> list[Answer]:
        """Answer the questions of one video whose inputs are there."""
        (finished,) = self.run(Job(lambda: inputs, decoding or Decoding()))
        return finished.first_answers()

    def answer_in_step(self, inputs: PrefixInputs, decoding: Decoding) -> list[Answer]:
        """Answer the questions of one video by `generate` of transformers.

        For processes that share one model's weights (ZeRO-3) and so must run it equally often:
        `generate` keeps them in step, continuous batches would not.

        Raises:
            EngineError: the model computed a time that is no number.
        """
        rows = [
            Row(None, suffix, decoding, decoding.generator(number, self.model.device))
            for number, suffix in enumerate(_suffixes(inputs))
        ]
        self.generate_alone(self.encode(inputs, whole_pass=True), rows)
        return [self.read(row, inputs.duration) for row in rows]

    # ------------------------------------------------------------------ what a run asks for

    def encode(self, inputs: PrefixInputs, whole_pass: bool = False) -> SharedPrefix:
        """Run the model over a video, once; see `encode_prefix` of the model."""
        with self.timed("encode_videos"):
            prefix = self._on_device(inputs.prefix)
            return self.model.encode_prefix(**prefix, whole_pass=whole_pass)

    def batch(self) -> Batch:
        """Return an empty batch."""
        ids = self.processor.token_ids
        return Batch(
            self.model,
            end_id=ids.im_end,
            pad_id=ids.pad,
            max_rows=self.max_rows,
            max_tokens=self.max_batch_tokens,
        )

    def can_stack(self, prefix: SharedPrefix) -> bool:
        """Whether rows of several videos can be decoded together; says so once where not."""
        attention = self.model.config.get_text_config()._attn_implementation
        stackable = Slots.can_hold(prefix.cache) and attention in ("sdpa", "eager")
        if not stackable and not self._warned:
            self._warned = True
            logger.warning(
                "one video is answered at a time: %s; attn_implementation='sdpa' answers many",
                f"{attention} attention cannot read rows of different lengths"
                if Slots.can_hold(prefix.cache)
                else "the cache of this language model cannot be laid side by side",
            )
        return stackable

    def generate_alone(self, prefix: SharedPrefix, rows: Sequence[Row]) -> None:
        """Fill rows behind one prefix by `generate` of transformers."""
        ids = self.processor.token_ids
        decoding = rows[0].decoding
        sampling = {"do_sample": False}
        if decoding.do_sample:
            torch.manual_seed(rows[0].generator.initial_seed() % 2**63)
            names = ("temperature", "top_k", "top_p")
            sampling = {"do_sample": True} | {name: getattr(decoding, name) for name in names}
        batch = self._on_device(self.processor.pad_left([row.suffix for row in rows]))
        output = self.model.generate_from_prefix(
            prefix,
            **batch,
            **sampling,
            num_beams=1,
            use_cache=True,
            begin_suppress_tokens=[ids.im_end] if decoding.min_new_tokens else None,
            min_new_tokens=decoding.min_new_tokens if decoding.min_new_tokens > 1 else None,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=[ids.im_end, *decoding.stop_ids],
            pad_token_id=ids.pad,
            return_dict_in_generate=True,
        )
        new = output.sequences[:, batch["input_ids"].shape[1] :].tolist()
        spreads = output.time_distributions or [()] * len(rows)
        for row, ids_, times, spread in zip(rows, new, output.times, spreads, strict=True):
            ends = {ids.im_end, *decoding.stop_ids}
            length = next((i + 1 for i, token in enumerate(ids_) if token in ends), len(ids_))
            row.ids, row.intervals, row.distributions = ids_[:length], list(times), list(spread)

    def read(self, row: Row, duration: float) -> Answer:
        """Return a row's answer in words and seconds.

        Raises:
            EngineError: the model computed a time that is no number.
        """
        times = torch.stack(row.intervals) if row.intervals else torch.zeros(0, 2)
        spread = torch.stack(row.distributions) if row.distributions else None
        answer = read_answer(self.processor, row.ids, times, spread, duration)
        if any(not math.isfinite(event.start + event.end) for event in answer.events):
            raise EngineError(
                f"the model computed a time that is no number in {self.model.dtype}; give a wider "
                "dtype (bfloat16 or float32)"
            )
        return answer

    def _on_device(self, tensors: dict) -> dict:
        return {name: tensor.to(self.model.device) for name, tensor in tensors.items()}

    def timed(self, name: str) -> _Timed:
        """Return a context whose seconds count as this kind of work."""
        return _Timed(self.seconds, name, self.model.device)


class _Run:
    """The jobs of one call: which wait, which are being answered."""

    def __init__(self, engine: Engine, source: Source):
        self.engine, self.batch = engine, engine.batch()
        self.loader = _Loader(source, engine.workers)
        self.waiting: deque[_Tag] = deque()  # answers that have not entered, in order
        self.prefix: tuple[_Open, SharedPrefix] | None = None  # of the job that enters now
        self.group: int | None = None  # of the job that entered last
        self.ready: deque[Finished] = deque()

    def finished(self) -> Iterator[Finished]:
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
        suffixes = _suffixes(inputs)
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
        owner.missing -= 1
        if owner.missing == 0:
            self.ready.append(Finished(owner.job, owner.answers))


def _suffixes(inputs: PrefixInputs) -> list[list[int]]:
    ids, mask = inputs.suffixes["input_ids"], inputs.suffixes["attention_mask"].bool()
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]


class _Loader:
    """Prepares the inputs of the next jobs in background threads.

    Threads are enough: decoding, resizing and tokenising all work without Python's lock.
    """

    def __init__(self, source: Source, workers: int):
        self.source, self.workers = source, workers
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="video")
        self.loading: deque[tuple[Job, Future[PrefixInputs]]] = deque()
        self.is_done = False

    def following(self) -> Job | None:
        """The next job, if one has come; it stays."""
        self._fill()
        return self.loading[0][0] if self.loading else None

    def take(self, wait: bool) -> tuple[Job, Future[PrefixInputs]] | None:
        """Return a job whose inputs are there, or, having waited, None at the end of all jobs.

        Jobs of a group come in order, others as they are loaded.

        Args:
            wait: until the first one is ready, or comes.
        """
        self._fill()
        if not self.loading:
            if not wait:
                return None
            if (job := self.source.get(wait=True)) is None:
                self.is_done = True
                return None
            self._submit(job)
        while True:
            in_order = self.loading[0][0].group is not None
            for entry in islice(self.loading, 1 if in_order else None):
                if entry[0].group is not None and not in_order:
                    break
                if entry[1].done():
                    self.loading.remove(entry)
                    return entry
            if not wait:
                return None
            # Not for ever: others may come meanwhile whose inputs are there sooner.
            wait_for([future for _, future in self.loading], 0.05, FIRST_COMPLETED)
            self._fill()

    def _fill(self) -> None:
        while len(self.loading) <= self.workers:
            if (job := self.source.get(wait=False)) is None:
                return
            self._submit(job)

    def _submit(self, job: Job) -> None:
        self.loading.append((job, self.pool.submit(job.load)))

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Timed:
    """Adds the seconds of a `with` block to a counter; waits for the device first."""

    def __init__(self, seconds: Counter[str], name: str, device: torch.device):
        self.seconds, self.name, self.device = seconds, name, device

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[self.name] += time.perf_counter() - self.start
