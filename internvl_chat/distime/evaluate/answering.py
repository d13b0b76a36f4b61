"""From one video and its questions to their answers.

The costly part of a prompt is the video: 16 frames are 4,096 tokens, a question about 40. So a
video is decoded once, encoded once, and the questions are answered in batches behind its prefix.
The published way (`share_prefix=False`, `batch_size=1`) encodes it anew for every question; both
give the same answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from distime.backbones import DisTimeForConditionalGeneration
from distime.benchmarks.base import Benchmark, Interval, Query
from distime.errors import DisTimeError
from distime.evaluate.settings import Settings
from distime.model.generation import SharedPrefix
from distime.model.hub import local_folder
from distime.model.modeling import class_of
from distime.processing.answers import Answer, read_answer
from distime.processing.processor import DisTimeProcessor, PrefixInputs
from distime.processing.prompt import PromptError
from distime.processing.sampling import VideoSample
from distime.processing.video import VideoError

logger = logging.getLogger(__name__)


class AnswerError(DisTimeError):
    """The model's answer cannot be used; the message says why."""


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FAILURES = (VideoError, PromptError, AnswerError)
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
        self.settings, self.benchmark, self.device = settings, benchmark, device
        self.seconds: Counter[str] = Counter()
        self.warnings: dict[str, tuple[str, ...]] = {}
        with self._timed("load"):
            processor = DisTimeProcessor.from_pretrained(settings.checkpoint)
            self.processor = benchmark.processor(processor)
            self.model = load_model(settings, device)
            self.processor.check_model(self.model.config)

    # ------------------------------------------------------------------ the two halves

    def load(self, task: Task) -> VideoSample | PrefixInputs:
        """Decode a video and tokenise its questions; runs in background threads.

        Raises:
            VideoError: the video cannot be read.
            PromptError: a question contains image tokens.
        """
        sample = self.processor.load_video(
            task.path,
            self.settings.num_segments,
            rule=self.benchmark.rule,
            bound=task.bound,
            gif_fps=self.benchmark.gif_fps,
        )
        self.warnings[task.key] = sample.warnings + shorter_than_annotated(task, sample)
        if not self.settings.share_prefix:
            return sample
        questions = [query.question for query in task.queries]
        return self.processor.shared_prefix(sample, questions, join=self.benchmark.join)

    def answer(self, task: Task, loaded: VideoSample | PrefixInputs) -> list[Answer]:
        """Answer a task's queries, in order.

        Raises:
            AnswerError: the model computed a time that is no number.
        """
        by_prefix = isinstance(loaded, PrefixInputs)
        answers = self._by_prefix(loaded) if by_prefix else self._anew(task, loaded)
        if any(not math.isfinite(e.start + e.end) for answer in answers for e in answer.events):
            raise AnswerError(
                f"the model computed a time that is no number in --dtype {self.settings.dtype}; "
                "give a wider one (bf16 or fp32)"
            )
        return answers

    # ------------------------------------------------------------------ ways to answer

    def _by_prefix(self, inputs: PrefixInputs) -> list[Answer]:
        with self._timed("encode_videos"):
            prefix = self.model.encode_prefix(**self._on_device(inputs.prefix))
        ids, mask = inputs.suffixes["input_ids"], inputs.suffixes["attention_mask"]
        rows = self._rows(prefix.length + ids.shape[1])
        answers: list[Answer] = []
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            first = int((mask[part].sum(0) == 0).sum())  # columns that only others need
            batch = {"input_ids": ids[part, first:], "attention_mask": mask[part, first:]}
            answers += self._generate(
                batch, [inputs.duration] * len(batch["input_ids"]), prefix=prefix
            )
        return answers

    def _anew(self, task: Task, sample: VideoSample) -> list[Answer]:
        join = self.benchmark.join
        questions = [query.question for query in task.queries]
        longest = self.processor([sample], [max(questions, key=len)], join=join)["input_ids"]
        rows = self._rows(longest.shape[1])
        answers: list[Answer] = []
        for start in range(0, len(questions), rows):
            asked = questions[start : start + rows]
            batch = self.processor([sample] * len(asked), asked, join=join)
            answers += self._generate(batch, batch.pop("durations").tolist())
        return answers

    def _rows(self, length: int) -> int:
        """How many prompts of that many tokens fit."""
        fit = self.settings.max_batch_tokens // (length + self.settings.max_new_tokens)
        return max(1, min(self.settings.batch_size, fit))

    def _generate(
        self, batch: dict, durations: Sequence[float], prefix: SharedPrefix | None = None
    ) -> list[Answer]:
        options = {
            "do_sample": False,
            "num_beams": 1,
            "min_new_tokens": 1,
            "max_new_tokens": self.settings.max_new_tokens,
            "eos_token_id": self.processor.token_ids.im_end,
            "pad_token_id": self.processor.token_ids.pad,
            "return_dict_in_generate": True,
        }
        with self._timed("answer"):
            inputs = self._on_device(batch) | options
            if prefix is None:
                output = self.model.generate(**inputs)
            else:
                output = self.model.generate_from_prefix(prefix, **inputs)
            new_ids = output.sequences[:, batch["input_ids"].shape[1] :].cpu()
        return [
            read_answer(self.processor, *row)
            for row in zip(new_ids, output.times, output.time_distributions, durations, strict=True)
        ]

    def _on_device(self, tensors: dict) -> dict:
        dtype = self.model.dtype
        moved = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        if "pixel_values" in moved:
            moved["pixel_values"] = moved["pixel_values"].to(dtype)
        return moved

    def _timed(self, name: str) -> _Timed:
        return _Timed(self.seconds, name, self.device)


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
