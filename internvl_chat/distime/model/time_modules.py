"""The time decoder and the time encoder (paper, section 3.2). Times are normalised: 0 start, 1 end.

A point in time is written on a ruler of `reg_max + 1` bins, of which bin `k` stands for the
normalised time `k / reg_max`. The decoder turns a hidden state into one distribution over the bins
for each boundary of an event; the encoder turns points into Gaussians on the bins and those into an
embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gaussian_bins(times: Tensor, reg_max: int, sigma: float) -> Tensor:
    """Weights of the bins for points in time: a Gaussian around each, scaled to sum 1.

    Args:
        times: normalised times of any shape; points outside [0, 1] are allowed.
        reg_max: last bin.
        sigma: standard deviation in bins.

    Returns:
        float32 weights of shape `(*times.shape, reg_max + 1)`.
    """
    bins = torch.arange(reg_max + 1, dtype=torch.float32, device=times.device)
    distance = (bins - times.float().unsqueeze(-1) * reg_max) / sigma
    # Normalising by softmax is the same Gaussian but stays finite for points far outside the ruler,
    # where every exponential underflows and the quotient would be 0/0.
    return torch.softmax(-0.5 * distance.square(), dim=-1)


def expected_time(distribution: Tensor) -> Tensor:
    """Expectation of distributions over the bins, `(..., reg_max + 1)`, as normalised time."""
    reg_max = distribution.shape[-1] - 1
    bins = torch.arange(reg_max + 1, dtype=distribution.dtype, device=distribution.device)
    return (distribution * bins).sum(-1) / reg_max


def draw_times(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a bin for each boundary, as normalised time.

    Args:
        logits: `(N, 2, reg_max + 1)`.
        generator: of the draws.

    Returns:
        `(N, 2)`; start and end are drawn independently, so the end may come first.
    """
    count, sides, bins = logits.shape
    probabilities = logits.float().softmax(-1).view(count * sides, bins)
    drawn = torch.multinomial(probabilities, 1, generator=generator)
    return drawn.view(count, sides).float() / (bins - 1)


def time_log_prob(logits: Tensor, intervals: Tensor) -> Tensor:
    """Log-probability `(N,)` that `draw_times` gives these intervals.

    Args:
        logits: `(N, 2, reg_max + 1)`.
        intervals: `(N, 2)` normalised, each boundary on a bin.
    """
    bins = (intervals * (logits.shape[-1] - 1)).round().long()
    chosen = logits.float().log_softmax(-1).gather(-1, bins.unsqueeze(-1))
    return chosen.squeeze(-1).sum(-1)


class TimeLinear(nn.Linear):
    """A linear layer of a time module: the type by which its own initialisation is found."""


class TimeMLP(nn.Module):
    """Linear layers with ReLU between them and none after the last."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int, num_layers: int):
        super().__init__()
        widths = [in_features] + [hidden_features] * (num_layers - 1) + [out_features]
        self.layers = nn.ModuleList(
            TimeLinear(*pair) for pair in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        for layer in self.layers[:-1]:
            features = torch.relu(layer(features))
        return self.layers[-1](features)


class TimeDecoder(TimeMLP):
    """Hidden states that predict `<TIME_STAMP>` -> two distributions over the bins."""

    def __init__(self, hidden_size: int, reg_max: int, num_layers: int):
        super().__init__(hidden_size, hidden_size, 2 * (reg_max + 1), num_layers)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map `(N, hidden_size)` to float32 logits `(N, 2, reg_max + 1)`: start, then end."""
        return super().forward(hidden_states).float().unflatten(-1, (2, -1))


class TimeEncoder(TimeMLP):
    """Normalised intervals -> embeddings of the language model's width."""

    def __init__(self, hidden_size: int, reg_max: int, sigma: float, num_layers: int):
        super().__init__(2 * (reg_max + 1), hidden_size, hidden_size, num_layers)
        self.reg_max, self.sigma = reg_max, sigma

    def forward(self, intervals: Tensor) -> Tensor:
        """Map intervals `(N, 2)` in normalised time to embeddings `(N, hidden_size)`.

        The Gaussians are made in float32 whatever the model's dtype, since bfloat16 would round
        bins above 16 to an eighth of a bin.
        """
        bins = gaussian_bins(intervals, self.reg_max, self.sigma).flatten(-2)
        return super().forward(bins.to(self.layers[0].weight.dtype))
