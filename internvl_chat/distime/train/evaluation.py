"""Evaluation during training: grounding questions that are held out, answered and scored.

The questions are ordinary annotation lines (docs/DATA.md) with one question, one answer and one
interval in it. The model is asked them with exactly the tokens it is trained on, greedily, and its
first time is scored by R1 and mIoU (`distime.metrics.moments`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate.utils import gather_object
from tqdm import tqdm

from distime.backbones import DisTimeForConditionalGeneration
from distime.data.dataset import BAD_SAMPLE, DataError
from distime.data.lines import JsonlIndex
from distime.data.meta import DataSource, read_meta
from distime.data.schema import TrainingItem, clamp_targets, in_own_words, read_item
from distime.engine import Decoding, Engine, EngineError
from distime.metrics.intervals import NO_ANSWER, Interval
from distime.metrics.moments import THRESHOLDS, retrieval
from distime.model.tokens import TIME_STAMP
from distime.processing.ahead import load_ahead
from distime.processing.processor import DisTimeProcessor, PrefixInputs
from distime.processing.prompt import IGNORE_INDEX, VIDEO_TAG, encode_conversation
from distime.processing.sampling import VideoSample

logger = logging.getLogger(__name__)

METRICS = ("miou", *(f"r1_{threshold}" for threshold in THRESHOLDS))
"""Names of the scores, in percent, without the prefix `eval_`."""
_VIDEOS_AHEAD = 2


@dataclass(frozen=True)
class Answered:
    """What the model said to one question; seconds.

    Attributes:
        number: of the question.
        predicted: the first interval of the answer, neither ordered nor rounded.
        window: the annotated one, cut to the end of the video.
    """

    number: int
    predicted: Interval
    window: Interval


class HeldOut:
    """Held-out grounding questions.

    Args:
        path: a meta file, or one jsonl file whose media paths are relative to its folder.
        processor: of the model that is trained.
        num_frames: frames of a video; None for what the processor's settings say.
        batch_size: questions about a video that are answered at once.
        limit: use the first that many questions.
        max_new_tokens: longest answer, in tokens; an answer ends at its first time.

    Raises:
        AnnotationError: a file or a line of it is wrong.
        DataError: there is no grounding question.
    """

    def __init__(
        self,
        path: str | Path,
        processor: DisTimeProcessor,
        *,
        num_frames: int | None,
        batch_size: int = 8,
        limit: int | None = None,
        max_new_tokens: int = 64,
    ):
        self.processor, self.num_frames = processor, num_frames
        self.max_new_tokens = max_new_tokens
        items = _read(Path(path))
        self.questions = [item for item in items if _is_grounding(item)][:limit]
        if not self.questions:
            raise DataError(
                f"--eval_path {path}: none of its {len(items)} items is a grounding question; it "
                f"takes items with one question, and one {TIME_STAMP} in the answer"
            )
        self.batches = _by_video(self.questions, batch_size)
        logger.info("%s: %d of %d items are used", path, len(self.questions), len(items))

    def __len__(self) -> int:
        return len(self.questions)

    def score(
        self,
        model: DisTimeForConditionalGeneration,
        *,
        rank: int = 0,
        world_size: int = 1,
        show_progress: bool = False,
    ) -> dict[str, float]:
        """Answer every question, spread over the ranks, and score the answers.

        Every rank must call this. All take the same number of turns: where ZeRO-3 spreads the
        weights, a rank that stays behind would stop the others, so one that has no questions left,
        or cannot read their video, is asked about a blank frame.

        Args:
            model: on its device; it is left in the mode in which it was found.
            rank: of this process.
            world_size: number of processes.
            show_progress: draw a bar.

        Returns:
            `METRICS`, and `answered`: the percentage of questions with a time in the answer.
        """
        was_training = model.training
        model.eval()
        try:
            found = self._answer_share(model, rank, world_size, show_progress)
        finally:
            model.train(was_training)
        answered = {one.number: one for one in gather_object(found)}
        pairs = []
        for number, item in enumerate(self.questions):
            one = answered.get(number, Answered(number, NO_ANSWER, item.targets[0]))
            pairs.append((one.predicted, one.window))
        scores = {name.replace("@", "_").lower(): value for name, value in retrieval(pairs).items()}
        silent = sum(predicted == NO_ANSWER for predicted, _ in pairs) / len(self)
        return {name: scores[name] for name in METRICS} | {"answered": 100 * (1 - silent)}

    def _answer_share(
        self, model: DisTimeForConditionalGeneration, rank: int, world_size: int, bar: bool
    ) -> list[Answered]:
        engine = Engine(model, self.processor)
        turns = range(rank, -(-len(self.batches) // world_size) * world_size, world_size)
        loading = load_ahead(turns, self._load, _VIDEOS_AHEAD)
        found: list[Answered] = []
        progress = tqdm(loading, "evaluation", len(turns), leave=False, disable=not bar)
        for turn, loaded in progress:
            numbers = self.batches[turn] if turn < len(self.batches) else ()
            try:
                inputs = loaded.result()
            except BAD_SAMPLE as error:
                logger.warning(
                    "evaluation: %d questions count as not answered: %s", len(numbers), error
                )
                inputs, numbers = self._blank(), ()
            intervals = self._answer(engine, inputs, self.max_new_tokens if numbers else 1)
            for number, predicted in zip(numbers, intervals, strict=False):
                (window,), _ = clamp_targets(self.questions[number].targets, inputs.duration)
                found.append(Answered(number, predicted, window))
        return found

    def _load(self, turn: int) -> PrefixInputs:
        if turn >= len(self.batches):
            return self._blank()
        items = [self.questions[number] for number in self.batches[turn]]
        sample = self.processor.load_video(items[0].video, self.num_frames, rule="eval")
        return self.processor.split_prompts(sample, [self._prompt(item, sample) for item in items])

    def _prompt(self, item: TrainingItem, sample: VideoSample) -> list[int]:
        """The ids before the answer, just as in training."""
        processor = self.processor
        media, turns = processor.video_media(sample), in_own_words(processor, item)
        encoded = encode_conversation(processor.tokenizer, processor.template, turns, media)
        first = next(i for i, label in enumerate(encoded.labels) if label != IGNORE_INDEX)
        return list(encoded.input_ids[:first])

    def _blank(self) -> PrefixInputs:
        frame = np.zeros((1, 8, 8, 3), dtype=np.uint8)
        return self.processor.shared_prefix(VideoSample(frame, [0.0], 1.0, [0]), ["?"])

    def _answer(self, engine: Engine, inputs: PrefixInputs, max_new_tokens: int) -> list[Interval]:
        """The first interval of each answer in seconds, `NO_ANSWER` where there is none."""
        # Only the first time is scored: nothing behind it needs to be generated.
        in_words = self.processor.time_head.in_words
        stop_ids = () if in_words else (self.processor.token_ids.time_stamp,)
        decoding = Decoding(max_new_tokens=max_new_tokens, stop_ids=stop_ids)
        try:
            answers = engine.answer_in_step(inputs, decoding)
        except EngineError:
            # A diverging model computes times that are no numbers; training stops on it soon.
            return [NO_ANSWER] * len(inputs.suffixes["input_ids"])
        first = [answer.events[0] if answer.events else None for answer in answers]
        return [NO_ANSWER if event is None else (event.start, event.end) for event in first]


def _read(path: Path) -> list[TrainingItem]:
    is_jsonl = path.suffix == ".jsonl"
    sources = [DataSource(path.name, path.parent, path)] if is_jsonl else read_meta(path)
    items = []
    for source in sources:
        index = JsonlIndex(source.annotation)
        items += [read_item(index, n, source) for n in source.sample_indices(len(index)).tolist()]
    return items


def _is_grounding(item: TrainingItem) -> bool:
    speakers = [turn.speaker for turn in item.turns if turn.speaker != "system"]
    one_answer = speakers == ["human", "gpt"] and TIME_STAMP in item.turns[-1].text
    return item.video is not None and one_answer and len(item.targets) == 1


def _by_video(questions: Sequence[TrainingItem], batch_size: int) -> list[tuple[int, ...]]:
    """Numbers of the questions that are answered at once: those with the same beginning."""
    groups: dict[tuple, list[int]] = {}
    for number, item in enumerate(questions):
        *system, human, _ = item.turns
        before, tag, _ = human.text.partition(VIDEO_TAG)
        key = (item.video, tuple(turn.text for turn in system), before if tag else "")
        groups.setdefault(key, []).append(number)
    return [
        tuple(numbers[start : start + batch_size])
        for numbers in groups.values()
        for start in range(0, len(numbers), batch_size)
    ]
