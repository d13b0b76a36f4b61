"""The losses of DisTime. A batch's loss is the mean of the losses its samples have alone.

Everything here works on flat lists of tokens and events, each with the index of the sample it
belongs to, so that padded, packed and prefix-shared batches are one case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from distime.model.config import TimeConfig
    from distime.model.heads.base import TimeHead

_TINY = 1e-6
# A reversed prediction around an (almost) empty target has a hull near zero, which the published
# loss divides by: 1e12 and more. Ordered intervals never exceed 1, so only such cases are bounded.
_MAX_DISTANCE_PENALTY = 100.0


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with the two bins around each target, weighted by nearness (Generalized Focal
    Loss, arXiv 2006.04388, equation 6).

    Args:
        logits: `(..., reg_max + 1)` float32.
        targets: `(...)` normalised times in [0, 1].

    Returns:
        the loss of every boundary, shape `(...)`.
    """
    reg_max = logits.shape[-1] - 1
    position = targets * reg_max
    left = position.floor().long()
    # The last bin has no right neighbour: a target there puts all its weight on that bin.
    right = (left + 1).clamp(max=reg_max)
    nearness_right = position - left
    log_p = torch.log_softmax(logits, dim=-1)
    log_left = log_p.gather(-1, left.unsqueeze(-1)).squeeze(-1)
    log_right = log_p.gather(-1, right.unsqueeze(-1)).squeeze(-1)
    return -(1 - nearness_right) * log_left - nearness_right * log_right


def distance_iou_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Distance-IoU of intervals, 1 - IoU + (distance of centres / hull)^2 (arXiv 1911.08287).

    Args:
        predicted: intervals `(N, 2)`, in any unit of time; start may come after end.
        targets: intervals `(N, 2)` in the same unit, ordered.

    Returns:
        `(N,)`, finite everywhere. A NaN prediction counts as 0, as published; it still shows in the
        distribution loss, so that training stops on it.
    """
    start, end = predicted.nan_to_num(nan=0.0).unbind(-1)
    target_start, target_end = targets.unbind(-1)
    overlap = (torch.minimum(end, target_end) - torch.maximum(start, target_start)).clamp(min=0)
    union = ((end - start) + (target_end - target_start) - overlap).clamp(min=_TINY)
    hull = (torch.maximum(end, target_end) - torch.minimum(start, target_start)).clamp(min=_TINY)
    distance = (start + end - target_start - target_end) / 2
    return 1 - overlap / union + (distance / hull).square().clamp(max=_MAX_DISTANCE_PENALTY)


def sum_per_sample(values: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    """Add `values` `(N,)` into `(num_samples,)` by their sample index `(N,)`."""
    return values.new_zeros(num_samples).index_add(0, sample, values)


def mean_per_sample(values: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    """Average `values` `(N,)` within each sample; 0 for a sample that has none."""
    count = sum_per_sample(torch.ones_like(values), sample, num_samples)
    return sum_per_sample(values, sample, num_samples) / count.clamp(min=1)


@dataclass
class Losses:
    """The losses of a batch, unweighted, and their weighted sum; all scalars.

    Attributes:
        total: the sum.
        text: cross-entropy.
        times: those of the time head, by name.
    """

    total: Tensor
    text: Tensor
    times: dict[str, Tensor]


class DisTimeCriterion:
    """Text and time losses of a batch (paper, section 3.3).

    Args:
        config: loss weights.
        head: of the model; its losses are those of time.
    """

    def __init__(self, config: TimeConfig, head: TimeHead):
        self.config, self.head = config, head

    def __call__(
        self,
        *,
        text_logits: Tensor,
        text_labels: Tensor,
        text_sample: Tensor,
        time_logits: Tensor | None,
        time_targets: Tensor,
        time_sample: Tensor,
        num_samples: int,
        text_weight: Tensor | None = None,
        text_weight_sum: Tensor | None = None,
        divisor: Tensor | float | None = None,
    ) -> Losses:
        """Compute the losses.

        Args:
            text_logits: `(S, vocabulary)` at the supervised positions only.
            text_labels: `(S,)` token ids.
            text_sample: `(S,)` sample index of each supervised token.
            time_logits: of the E supervised `<TIME_STAMP>` tokens, as the head has them, such as
                `(E, 2, reg_max + 1)`; None where it writes words.
            time_targets: `(E, 2)` normalised intervals in [0, 1].
            time_sample: `(E,)` sample index of each event.
            num_samples: number of samples in this batch.
            text_weight: `(S,)` weight of every supervised token, if tokens are weighted.
            text_weight_sum: `(num_samples,)` sum of the weights of all positions of a sample.
            divisor: what the sum of the samples' losses is divided by; `num_samples` when absent.
                Gradient accumulation passes the number of samples of the whole step.
        """
        divisor = num_samples if divisor is None else divisor
        cross_entropy = F.cross_entropy(text_logits.float(), text_labels, reduction="none")
        if text_weight is None:
            text = mean_per_sample(cross_entropy, text_sample, num_samples)
        else:
            weighted = sum_per_sample(cross_entropy * text_weight, text_sample, num_samples)
            text = weighted / text_weight_sum
        text = text.sum() / divisor
        total = self.config.text_loss_weight * text
        times = {}
        if time_logits is not None:
            for name, loss in self.head.loss(
                time_logits, time_targets, time_sample, num_samples
            ).items():
                times[name] = loss.sum() / divisor
                total = total + getattr(self.config, f"{name}_loss_weight") * times[name]
        return Losses(total, text, times)
