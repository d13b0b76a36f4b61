"""From one video and its questions to their answers.

The costly part of a prompt is the video: 16 frames are 4,096 tokens, a question about 40. So a
video is decoded once, encoded once, and its questions join those of other videos in the engine's
batches. The published way (`share_prefix=False`, `batch_size=1`) encodes it anew for every
question; both give the same answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property, partial
from pathlib import Path

import torch

from distime.backbones import DisTimeForConditionalGeneration
from distime.benchmarks.base import Benchmark, Interval, Query
from distime.engine import Decoding, Engine, EngineError, Job
from distime.evaluate.settings import Settings
from distime.model.hub import local_folder
from distime.model.loading import class_of
from distime.processing.answers import Answer
from distime.processing.processor import DisTimeProcessor, PrefixInputs
from distime.processing.prompt import PromptError
from distime.processing.sampling import VideoSample
from distime.processing.video import VideoError

logger = logging.getLogger(__name__)


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FAILURES = (VideoError, PromptError, EngineError)
"""What is wrong with one video and must not end the run."""


@dataclasses.dataclass(frozen=True)
class Task:
    """The work that is done at once: some frames of one video and all questions about them.

    Attributes:
        video: name in the annotation.
        path: where it is.
        queries: all with the same bound.
    """

    video: str
    path: Path
    queries: tuple[Query, ...]

    @property
    def bound(self) -> Interval | None:
        """The part of the video that is shown, (start, end) in seconds."""
        return self.queries[0].bound

    @cached_property
    def key(self) -> str:
        """Changes with anything that is asked, so that old answers are known by it."""
        asked = [self.video, self.bound, [[query.id, query.question] for query in self.queries]]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def units_of(tasks: Sequence[Task], batch_size: int) -> list[list[Task]]:
    """Cut tasks into runs that are answered among themselves, and by one process.

    What shares a batch changes the last bit of a number. Units depend on the annotation alone, so
    that any number of processes, and runs that were killed and go on, write the same bytes. They
    are large enough for places in the batch to be filled again, and many enough to be shared.

    Args:
        tasks: all of a run.
        batch_size: most queries that are answered at once.
    """
    total = sum(len(task.queries) for task in tasks)
    size = min(max(total // 64, batch_size), 8 * batch_size)
    units: list[list[Task]] = []
    room = 0
    for task in tasks:
        if room <= 0:
            units.append([])
            room = size
        units[-1].append(task)
        room -= len(task.queries)
    return units


def shorter_than_annotated(task: Task, sample: VideoSample) -> tuple[str, ...]:
    """Say of a video that it is shorter than the annotation has it: it may be cut short.

    Transport streams and live recordings do not know how long they should be.
    """
    annotated = max((query.duration or 0.0 for query in task.queries), default=0.0)
    if annotated - sample.duration <= max(2.0, 0.05 * annotated):
        return ()
    words = (
        f"{task.path} lasts {sample.duration:.1f} s, but {annotated:.1f} s by the annotation: it "
        "may be cut short; download it again"
    )
    logger.warning("%s", words)
    return (words,)


class Answerer:
    """A loaded checkpoint that answers tasks.

    Args:
        settings: of the run.
        benchmark: says how frames and questions are put together.
        device: where the model runs.

    Attributes:
        seconds: time spent by this process, by kind of work.
        warnings: what is wrong with the videos that were loaded, by `Task.key`.
    """

    def __init__(self, settings: Settings, benchmark: Benchmark, device: torch.device):
        self.settings, self.benchmark = settings, benchmark
        self.warnings: dict[str, tuple[str, ...]] = {}
        started = time.perf_counter()
        processor = DisTimeProcessor.from_pretrained(settings.checkpoint)
        processor.adjust(**settings.frames)
        self.processor = benchmark.processor(processor)
        model = load_model(settings, device)
        if settings.image_size is not None:
            self.processor.fit(model.config)
        self.processor.check_model(model.config)
        self.engine = Engine(
            model,
            self.processor,
            max_rows=settings.batch_size,
            max_batch_tokens=settings.max_batch_tokens,
            workers=settings.workers,
        )
        self.seconds = self.engine.seconds
        self.seconds["load"] = time.perf_counter() - started

    def answer(
        self, units: Iterable[tuple[int, Sequence[Task]]]
    ) -> Iterator[tuple[Task, list[Answer] | Exception]]:
        """Answer tasks, in the order in which they come to their end.

        Args:
            units: the number of each unit, see `units_of`, and its tasks.

        Yields:
            a task with the answers to its queries in order, or with one of `FAILURES`.
        """
        found: dict[str, dict[int, Answer]] = {}
        jobs = (
            job for number, tasks in units for task in tasks for job in self._jobs(task, number)
        )
        for finished in self.engine.run(jobs):
            task, first = finished.job.tag
            answers = found.setdefault(task.key, {})
            if len(answers) == len(task.queries):
                continue  # another part of it failed
            if isinstance(finished.error, FAILURES):
                found[task.key] = dict.fromkeys(range(len(task.queries)))
                yield task, finished.error
                continue
            if finished.ran_away:
                self.warnings[task.key] += (
                    f"{task.path}: {finished.ran_away} answers were ended since they said the same "
                    f"{self.settings.max_repeats} times running (--max-repeats)",
                )
            answers |= enumerate(finished.first_answers(), start=first)
            if len(answers) == len(task.queries):
                yield task, [answers[number] for number in range(len(task.queries))]

    def _jobs(self, task: Task, group: int) -> Iterator[Job]:
        """One job for all queries, or, with `share_prefix` off, one for each."""
        sample = cache(lambda: self._load(task))
        decoding = Decoding(
            max_new_tokens=self.settings.max_new_tokens, max_repeats=self.settings.max_repeats
        )
        step = len(task.queries) if self.settings.share_prefix else 1
        for first in range(0, len(task.queries), step):
            questions = [query.question for query in task.queries[first : first + step]]
            load = partial(self._inputs, sample, questions)
            yield Job(load, decoding, tag=(task, first), group=group)

    def _load(self, task: Task) -> VideoSample:
        sample = self.processor.load_video(
            task.path,
            self.settings.num_segments,
            rule=self.benchmark.rule,
            bound=task.bound,
            gif_fps=self.benchmark.gif_fps,
        )
        self.warnings[task.key] = sample.warnings + shorter_than_annotated(task, sample)
        return sample

    def _inputs(self, sample: Callable[[], VideoSample], questions: list[str]) -> PrefixInputs:
        return self.processor.shared_prefix(sample(), questions, join=self.benchmark.join)


def load_model(settings: Settings, device: torch.device) -> DisTimeForConditionalGeneration:
    """Load the checkpoint in the precision that the settings name, ready to answer."""
    options = {"dtype": DTYPES[settings.dtype]}
    if settings.attn:
        options["attn_implementation"] = settings.attn
    if not settings.quantize:
        model = DisTimeForConditionalGeneration.from_pretrained(settings.checkpoint, **options)
        return model.to(device).eval()
    from transformers import BitsAndBytesConfig

    # Times come from a hidden state and two small networks: only the language model's own layers
    # are worth quantising.
    parts = class_of(local_folder(settings.checkpoint)).parts
    kept = [parts.head, *parts.vision, *parts.projector, "time_encoder", "time_decoder"]
    four = settings.quantize == "4bit"
    options["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        llm_int8_skip_modules=kept,
        bnb_4bit_compute_dtype=DTYPES[settings.dtype],
    )
    options["device_map"] = {"": device}
    return DisTimeForConditionalGeneration.from_pretrained(settings.checkpoint, **options).eval()
