"""Times as distributions over bins, as published: the answer is their expectation."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from distime.model.heads.base import TimeHead
from distime.model.losses import (
    distance_iou_loss,
    distribution_focal_loss,
    mean_per_sample,
    sum_per_sample,
)
from distime.model.time_modules import TimeDecoder, draw_times, expected_time, time_log_prob


class DistributionHead(TimeHead):
    """Logits `(N, 2, reg_max + 1)` of start and end over the bins (paper, section 3.2)."""

    has_distribution = True
    losses = ("distribution", "iou")
    how = (
        "A time in its answer is one token,\n`<TIME_STAMP>`, from whose hidden state a small "
        "decoder reads two distributions over $bins bins,\none for the start and one for the end; "
        "their expectations are the times."
    )
    limits = (
        "Times are expectations over the whole video: an event much shorter than a bin ($bins "
        "bins, so\n1/$reg_max of the video) is placed inside its bin by the balance of two "
        "neighbours. "
    )

    def decoder(self, width: int) -> nn.Module:
        """See `TimeHead.decoder`."""
        return TimeDecoder(width, self.config.reg_max, self.config.layer_num)

    def decode(self, logits: Tensor) -> Tensor:
        """The expectations."""
        return expected_time(logits.softmax(-1))

    def distribution(self, logits: Tensor) -> Tensor:
        """The probabilities of the bins."""
        return logits.softmax(-1)

    def sample(self, logits: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw one bin for each boundary."""
        return draw_times(logits, generator)

    def log_prob(self, logits: Tensor, intervals: Tensor) -> Tensor:
        """Of the bins that are nearest to the boundaries, start and end together."""
        return time_log_prob(logits, intervals)

    def loss(
        self, logits: Tensor, targets: Tensor, sample: Tensor, num_samples: int
    ) -> dict[str, Tensor]:
        """Distribution focal loss and DIoU (paper, section 3.3)."""
        boundary = distribution_focal_loss(logits, targets)
        if self.config.distribution_loss_reduction == "sum":
            distribution = sum_per_sample(boundary.sum(-1), sample, num_samples)
            distribution = distribution / self.config.reg_max
        else:
            distribution = mean_per_sample(boundary.mean(-1), sample, num_samples)
        iou = distance_iou_loss(self.decode(logits), targets)
        return {
            "distribution": distribution,
            "iou": mean_per_sample(iou, sample, num_samples),
        }


HEAD = DistributionHead
