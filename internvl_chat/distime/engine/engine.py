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
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch

from distime.engine.batch import Batch, Row
from distime.engine.continuous import Run
from distime.engine.decoding import Decoding, EngineError, says_again
from distime.engine.jobs import Finished, Job, JobSource
from distime.engine.loader import Given
from distime.engine.slots import Slots
from distime.model.block_attention import SDPA_BLOCKS
from distime.model.generation import SharedPrefix
from distime.processing.answers import Answer, read_answer
from distime.processing.processor import DisTimeProcessor, PrefixInputs

logger = logging.getLogger(__name__)


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

    def run(self, jobs: Iterable[Job] | Job | JobSource) -> Iterator[Finished]:
        """Answer jobs; each comes back when its last answer is there, so in any order.

        Jobs are taken from the iterable as they are needed, `workers` ahead. An exception of the
        model itself is raised here; what a job's loading raises comes back with the job.
        """
        if isinstance(jobs, Job):
            jobs = [jobs]
        source = jobs if hasattr(jobs, "get") else Given(jobs)
        run = Run(self, source)
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
            for number, suffix in enumerate(inputs.suffix_ids())
        ]
        self.generate_alone(self.encode(inputs, whole_pass=True), rows)
        return [self.read(row, inputs.duration) for row in rows]

    # ------------------------------------------------------------------ what a run asks for

    def encode(self, inputs: PrefixInputs, whole_pass: bool = False) -> SharedPrefix:
        """Run the model over a video, once; see `encode_prefix` of the model."""
        with self.timed("encode_videos", wait=True):
            prefix = self._on_device(inputs.prefix)
            return self.model.encode_prefix(**prefix, whole_pass=whole_pass)

    def batch(self) -> Batch:
        """Return an empty batch."""
        return Batch(
            self.model,
            end_id=self.processor.token_ids.im_end,
            max_rows=self.max_rows,
            max_tokens=self.max_batch_tokens,
        )

    def can_stack(self, prefix: SharedPrefix) -> bool:
        """Whether rows of several videos can be decoded together; says so once where not."""
        attention = self.model.config.get_text_config()._attn_implementation
        stackable = Slots.can_hold(prefix.cache) and attention in ("sdpa", SDPA_BLOCKS, "eager")
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
            if decoding.max_repeats:
                steps = range(1, length)
                again = (n for n in steps if says_again(ids_[:n], decoding.max_repeats))
                row.ran_away = (end := next(again, None)) is not None
                length = end or length
            row.ids = ids_[:length]
            count = row.ids.count(self.model.config.time_token_id)
            row.intervals, row.distributions = list(times)[:count], list(spread)[:count]

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

    def timed(self, name: str, wait: bool = False) -> _Timed:
        """Return a context whose seconds count as this kind of work.

        Args:
            name: of the work.
            wait: for the device at the end. A step of decoding begins with a wait of its own.
        """
        return _Timed(self.seconds, name, self.model.device if wait else None)


class _Timed:
    """Adds the seconds of a `with` block to a counter, having waited for a device."""

    def __init__(self, seconds: Counter[str], name: str, device: torch.device | None):
        self.seconds, self.name, self.device = seconds, name, device

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[self.name] += time.perf_counter() - self.start
