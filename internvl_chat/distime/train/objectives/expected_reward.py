"""The exact expectation of a reward over the distributions of a time, beside the usual losses.

Start and end are drawn from two distributions over `reg_max + 1` bins each, so a reward has
`(reg_max + 1)^2` values, and its expectation is `p_start^T R p_end`: no sampling, no variance, and
a gradient. What a pair of bins in the wrong order earns is for the reward to say: nothing, by most.

Each `<TIME_STAMP>` is rewarded by itself against its own interval; rewards of whole answers and of
words are `grpo`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distime.model.losses import mean_per_sample
from distime.model.modeling import DisTimeOutput
from distime.train.chosen_rewards import ChosenReward, Scene, read_rewards
from distime.train.flags import ArgumentError
from distime.train.objectives.base import (
    Batch,
    Objective,
    refuse_without_distribution,
    supervised_times,
)
from distime.train.rewards import RewardError

if TYPE_CHECKING:
    from distime.processing.processor import DisTimeProcessor
    from distime.train.arguments import DataArguments, ModelArguments, TrainArguments

_KEPT = 4096
"""Most grids of slower rewards that are remembered; one of 33 x 33 numbers is 4 KiB."""


def expected_value(time_logits: Tensor, grids: Tensor) -> Tensor:
    """Expectation `(E,)` of a reward under independent start and end.

    Args:
        time_logits: `(E, 2, bins)`.
        grids: `(E, bins, bins)`, the reward of each pair (start, end).
    """
    start, end = time_logits.float().softmax(-1).unbind(1)
    return torch.einsum("es,est,et->e", start, grids, end)


def tiou_grid(targets: Tensor, bins: int) -> Tensor:
    """`tiou` of every pair of bins, `(E, bins, bins)`, with normalised intervals `(E, 2)`.

    As `distime.train.rewards.tiou`, many at once; a pair that does not end after it starts covers
    nothing.
    """
    times = torch.arange(bins, dtype=torch.float64, device=targets.device) / (bins - 1)
    start, end = times[:, None], times[None, :]
    first, last = (edge.double()[:, None, None] for edge in targets.unbind(-1))
    shared = (torch.minimum(end, last) - torch.maximum(start, first)).clamp(min=0)
    union = (end - start) + (last - first) - shared
    is_forward = (end > start).expand_as(shared)
    # Two that cover nothing agree.
    both_empty = ~is_forward & (last <= first)
    values = torch.where(is_forward & (last > first), shared / union.clamp(min=1e-12), 0.0)
    return torch.where(both_empty, 1.0, values).float()


def reward_grid(
    reward: ChosenReward, target: Sequence[float], duration: float, bins: int
) -> Tensor:
    """A reward of every pair of bins, as `(bins, bins)`.

    Args:
        reward: of intervals alone.
        target: the true interval in seconds.
        duration: of the video, in seconds.
        bins: of each distribution.

    Raises:
        RewardError: it returned something that is no number.
    """
    times = [duration * k / (bins - 1) for k in range(bins)]
    place = f"({target[0]:g}, {target[1]:g}) in {duration:g} s"
    truth = [tuple(target)]
    return torch.tensor(
        [[reward.value(Scene([(s, e)], truth, duration), place) for e in times] for s in times]
    )


class ExpectedReward(Objective):
    """The supervised losses less `reward_weight` times the expected reward."""

    flags = {"rewards": ("tiou",), "reward_weight": 1.0}
    own_losses = ("expected_reward",)

    def __init__(self, training: TrainArguments):
        super().__init__(training)
        self.rewards = read_rewards(self.settings["rewards"])
        if wordy := next((one.name for one in self.rewards if one.needs_words), None):
            raise ArgumentError(
                f"--rewards {wordy} looks at words, and --objective expected_reward has times "
                "alone: choose rewards of intervals, or --objective grpo"
            )
        self.grid = functools.lru_cache(_KEPT)(reward_grid)

    def check(
        self, arguments: ModelArguments, data: DataArguments, training: TrainArguments
    ) -> None:
        """Refuse a time head without distributions; see `Objective.check`."""
        refuse_without_distribution(arguments, training)

    def attach(self, model: torch.nn.Module, processor: DisTimeProcessor) -> None:
        """Note which tokens are times, and over how many bins they are distributed."""
        super().attach(model, processor)
        self.time_token_id, self.bins = model.config.time_token_id, model.config.reg_max + 1

    def prepare(self, batches: Sequence[Batch], step: int, autocast: Callable) -> list[Batch]:
        """Add to each batch the grids of its supervised times, and the sample of each."""
        return [batch | {"objective": self._grids(batch)} for batch in batches]

    def _grids(self, batch: Batch) -> tuple[Tensor, Tensor]:
        targets, samples = supervised_times(batch, self.time_token_id)
        durations = [batch["durations"][sample] for sample in samples.tolist()]
        total = torch.zeros(len(targets), self.bins, self.bins, device=targets.device)
        for reward in self.rewards:
            if reward.name == "tiou":
                grids = tiou_grid(targets.float(), self.bins)
            else:
                places = [batch["places"][sample] for sample in samples.tolist()]
                events = zip(targets.double().tolist(), durations, places, strict=True)
                found = [self._slow_grid(reward, *event) for event in events]
                grids = torch.stack(found).to(total) if found else total
            total = total + reward.weight * grids
        return total, samples

    def _slow_grid(
        self, reward: ChosenReward, target: Sequence[float], duration: float, place: str
    ) -> Tensor:
        seconds = tuple(edge * duration for edge in target)
        try:
            return self.grid(reward, seconds, duration, self.bins)
        except RewardError as error:
            raise RewardError(f"{place}: {error}") from error

    def compute(
        self, model: torch.nn.Module, batch: Batch, divisor: Tensor | None
    ) -> tuple[Tensor, DisTimeOutput]:
        """Return the loss with the reward in it; see `Objective.compute`."""
        outputs = self.run(model, batch, divisor)
        grids, samples = batch["objective"]
        expected = expected_value(outputs.time_logits, grids)
        # As the other losses: the mean of what the samples have alone, those without a time 0.
        count = batch["num_samples"]
        of_samples = mean_per_sample(expected, samples, count)
        outputs.expected_reward = of_samples.sum() / (count if divisor is None else divisor)
        return outputs.loss - self.settings["reward_weight"] * outputs.expected_reward, outputs
