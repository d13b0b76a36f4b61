"""Pixels that travel as they were decoded, a byte a colour, and are normalised where they are used.

As float32 they take four times the memory and the way from a loader's process to the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 pixels -> float32 ones, less the mean and divided by the standard deviation.

    Args:
        pixels: `(n, 3, H, W)`, or patches `(n, 3 * N)` whose colours lie one behind the other.
        mean: of red, green and blue, on the scale 0 to 1.
        std: likewise.
    """
    colours = pixels.reshape(len(pixels), 3, -1).to(torch.float32).div_(255)
    colours.sub_(_column(mean, pixels.device)).div_(_column(std, pixels.device))
    return colours.view(pixels.shape)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    # Filled on the device: a copy from the CPU would wait for it.
    filled = [torch.full((), value, dtype=torch.float32, device=device) for value in values]
    return torch.stack(filled).view(1, -1, 1)
