"""Answers sampled from the model that is trained: one pass over each video, then all its answers.

Words and times are drawn, and a drawn time, not the expectation, is fed back and is the answer. A
question's draws depend on the seed, the step and the question's place in its file alone, so they
are the same whatever process makes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import BatchFeature

from distime.data.dataset import SampleGroup
from distime.engine import Decoding, Engine, EngineError, Job
from distime.processing.processor import DisTimeProcessor, PrefixInputs
from distime.processing.prompt import IGNORE_INDEX, common_prefix, media_length
from distime.train.rewards import Intervals


@dataclass(frozen=True)
class Asked:
    """A question of a group, and its true answer.

    Attributes:
        suffix: ids behind the group's prefix, up to the answer.
        given: normalised `(n, 2)` of the `<TIME_STAMP>` tokens among them.
        true_text: the answer's words.
        truth: its intervals, in seconds.
        place: `file:line`.
    """

    suffix: list[int]
    given: Tensor
    true_text: str
    truth: Intervals
    place: str


@dataclass(frozen=True)
class Drawn:
    """A sampled answer.

    Attributes:
        ids: its tokens, with the end of the turn if it was reached.
        intervals: normalised `(n, 2)` of its `<TIME_STAMP>` tokens.
    """

    ids: Sequence[int]
    intervals: Sequence[Tensor]

    @property
    def times(self) -> Tensor:
        """The intervals as one tensor `(n, 2)`."""
        return torch.stack(list(self.intervals)).cpu() if self.intervals else torch.zeros(0, 2)

    def seconds(self, duration: float) -> Intervals:
        """The intervals in seconds, as drawn: nothing orders start and end."""
        return [(start * duration, end * duration) for start, end in self.times.tolist()]


def split(processor: DisTimeProcessor, group: SampleGroup) -> tuple[list[int], list[Asked]]:
    """Take a group's items apart: what all share, and of each the last question and its answer.

    Earlier answers of a conversation are part of the question.

    Raises:
        PromptError: a time is named before the video.
    """
    tokens, duration = processor.token_ids, group.duration
    asked, prompts = [], []
    for item, targets, place in zip(group.items, group.targets, group.places, strict=True):
        begin, end = _last_answer(item.labels)
        ids = [*group.prefix_ids, *item.input_ids]
        prompts.append(ids[: len(group.prefix_ids) + begin])
        num_given = item.input_ids[:begin].count(tokens.time_stamp)
        num_named = item.input_ids[begin:end].count(tokens.time_stamp)
        answer = targets[num_given : num_given + num_named].double() * duration
        truth = [tuple(pair) for pair in answer.tolist()]
        words = processor.decode(item.input_ids[begin:end])
        asked.append(Asked([], targets[:num_given], words, truth, place))
    # Times differ from question to question, and are fed by what is behind the prefix.
    free = [_before(prompt, tokens.time_stamp) for prompt in prompts]
    media = media_length(processor.tokenizer, prompts[0], processor.template)
    length = common_prefix(free, media)
    found = [
        Asked(prompt[length:], one.given, one.true_text, one.truth, one.place)
        for prompt, one in zip(prompts, asked, strict=True)
    ]
    return prompts[0][:length], found


def _last_answer(labels: Sequence[int]) -> tuple[int, int]:
    end = next(i for i in range(len(labels), 0, -1) if labels[i - 1] != IGNORE_INDEX)
    begin = next((i for i in range(end, 0, -1) if labels[i - 1] == IGNORE_INDEX), 0)
    return begin, end


def _before(prompt: Sequence[int], token: int) -> Sequence[int]:
    """A prompt up to and with the first such token, which `common_prefix` leaves out."""
    return prompt[: prompt.index(token) + 1] if token in prompt else prompt


def draw(
    engine: Engine,
    groups: Sequence[tuple[SampleGroup, list[int], list[Asked]]],
    decoding: Decoding,
    samples: int,
    seed: str,
) -> list[list[list[Drawn]]]:
    """Sample answers to the questions of many groups.

    Args:
        engine: with the model as it is now.
        groups: each with what `split` made of it.
        decoding: of every answer; its seed is set here.
        samples: answers to each question.
        seed: of this step.

    Returns:
        of every group, of every question, its answers.

    Raises:
        EngineError: the model computed a time that is no number, or cannot decode many rows.
    """
    kept: list[dict[tuple[int, int], Drawn]] = [{} for _ in groups]

    def job(number: int) -> Job:
        group, prefix, asked = groups[number]
        # Without the folder: the same data elsewhere give the same run.
        places = " ".join(one.place.rpartition("/")[-1] for one in asked)
        digest = hashlib.sha256(f"{seed} {places}".encode()).digest()

        def keep(question: int, sample: int, ids: Sequence[int], intervals: Sequence[Tensor]):
            kept[number][question, sample] = Drawn(ids, intervals)  # both grow to the answer's end

        return Job(
            lambda: inputs_of(engine.processor, group, prefix, asked),
            replace(decoding, seed=int.from_bytes(digest[:4])),
            samples,
            group=0,  # in order, whichever is ready first: then even last bits are the same
            on_token=keep,
        )

    for finished in engine.run(job(number) for number in range(len(groups))):
        if finished.error is not None:
            raise finished.error
    if not all(kept):
        raise EngineError(
            "answers cannot be sampled side by side: this language model keeps no full keys and "
            "values of what it has read"
        )
    return [
        [[found[question, sample] for sample in range(samples)] for question in range(len(asked))]
        for found, (_, _, asked) in zip(kept, groups, strict=True)
    ]


def inputs_of(
    processor: DisTimeProcessor, group: SampleGroup, prefix: list[int], asked: Sequence[Asked]
) -> PrefixInputs:
    """The engine's inputs of a group, from what `split` made of it."""
    media = {
        "pixel_values": group.pixel_values,
        "frame_times": group.frame_times,
        "image_grid_thw": group.image_grid_thw,
        "image_features": group.image_features,
    }
    shared = {name: one for name, one in media.items() if one is not None and len(one)}
    return PrefixInputs(
        BatchFeature({"input_ids": torch.tensor([prefix])} | shared),
        BatchFeature(processor.pad_left([one.suffix for one in asked])),
        group.duration,
        [one.given for one in asked],
    )
