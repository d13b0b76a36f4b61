"""The losses of DisTime. A batch's loss is the mean of the losses its samples have alone.

Everything here works on flat lists of tokens and events, each with the index of the sample it
belongs to, so that padded, packed and prefix-shared batches are one case.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distime.model.config import TimeConfig
from distime.model.time_modules import expected_time

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
    """The three losses of a batch, unweighted, and their weighted sum; all scalars."""

    total: Tensor
    text: Tensor
    distribution: Tensor
    iou: Tensor


class DisTimeCriterion:
    """Text, distribution and IoU losses of a batch (paper, section 3.3).

    Args:
        config: loss weights and the reduction of the distribution loss.
    """

    def __init__(self, config: TimeConfig):
        self.config = config

    def __call__(
        self,
        *,
        text_logits: Tensor,
        text_labels: Tensor,
        text_sample: Tensor,
        time_logits: Tensor,
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
            time_logits: `(E, 2, reg_max + 1)` of the supervised `<TIME_STAMP>` tokens.
            time_targets: `(E, 2)` normalised intervals in [0, 1].
            time_sample: `(E,)` sample index of each event.
            num_samples: number of samples in this batch.
            text_weight: `(S,)` weight of every supervised token, if tokens are weighted.
            text_weight_sum: `(num_samples,)` sum of the weights of all positions of a sample.
            divisor: what the sum of the samples' losses is divided by; `num_samples` when absent.
                Gradient accumulation passes the number of samples of the whole step.
        """
        config = self.config
        divisor = num_samples if divisor is None else divisor
        cross_entropy = F.cross_entropy(text_logits.float(), text_labels, reduction="none")
        if text_weight is None:
            text = mean_per_sample(cross_entropy, text_sample, num_samples)
        else:
            weighted = sum_per_sample(cross_entropy * text_weight, text_sample, num_samples)
            text = weighted / text_weight_sum

        boundary = distribution_focal_loss(time_logits, time_targets)
        if config.distribution_loss_reduction == "sum":
            distribution = sum_per_sample(boundary.sum(-1), time_sample, num_samples)
            distribution = distribution / config.reg_max
        else:
            distribution = mean_per_sample(boundary.mean(-1), time_sample, num_samples)

        predicted = expected_time(time_logits.softmax(-1))
        iou = mean_per_sample(distance_iou_loss(predicted, time_targets), time_sample, num_samples)

        text, distribution, iou = (loss.sum() / divisor for loss in (text, distribution, iou))
        total = (
            config.text_loss_weight * text
            + config.distribution_loss_weight * distribution
            + config.iou_loss_weight * iou
        )
        return Losses(total, text, distribution, iou)
