"""Times as two numbers, without a distribution: the paper's "direct" regression."""

from __future__ import annotations

from torch import Tensor, nn

from distime.model.heads.base import TimeHead
from distime.model.losses import distance_iou_loss, mean_per_sample
from distime.model.time_modules import TimeMLP


class TimeRegressor(TimeMLP):
    """Hidden states that predict `<TIME_STAMP>` -> start and end."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map `(N, hidden_size)` to float32 `(N, 2)`."""
        return super().forward(hidden_states).float()


class RegressionHead(TimeHead):
    """Logits `(N, 2)` are the normalised start and end themselves."""

    losses = ("distance", "iou")
    how = (
        "A time in its answer is one token,\n`<TIME_STAMP>`, from whose hidden state a small "
        "decoder reads two numbers, the start and the end."
    )

    def decoder(self, width: int) -> nn.Module:
        """As the decoder of distributions, but for the width of its last layer."""
        return TimeRegressor(width, width, 2, self.config.layer_num)

    def decode(self, logits: Tensor) -> Tensor:
        """Cut to the video; the losses see the numbers as they are."""
        return logits.clamp(0, 1)

    def loss(
        self, logits: Tensor, targets: Tensor, sample: Tensor, num_samples: int
    ) -> dict[str, Tensor]:
        """The mean distance of both boundaries from the truth (L1), and DIoU."""
        distance = (logits - targets).abs().mean(-1)
        iou = distance_iou_loss(logits, targets)
        return {
            "distance": mean_per_sample(distance, sample, num_samples),
            "iou": mean_per_sample(iou, sample, num_samples),
        }


HEAD = RegressionHead
