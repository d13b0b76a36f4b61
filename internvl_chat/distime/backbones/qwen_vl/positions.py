"""M-RoPE: a position of three coordinates for every token, one grid for every slot or picture.

Text counts up in all three. A grid's tokens share the first coordinate, and the others are their
row and column; what follows a grid goes on behind its longer side. Since slots have a grid each
(as in Qwen3-VL, which writes a time before each), nothing depends on the time between frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sequence_positions(is_visual: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
    """Positions `(3, T)` of one sequence, from 0.

    Args:
        is_visual: `(T,)`, where the tokens of pictures are; on the CPU.
        sides: height and width in tokens of every grid, in order.

    Raises:
        ValueError: the grids have more or fewer tokens than there are.
    """
    visual = is_visual.nonzero().flatten()
    expected = sum(height * width for height, width in sides)
    if len(visual) != expected:
        raise ValueError(
            f"input_ids has {len(visual)} tokens of pictures, but those that image_grid_thw "
            f"describes have {expected}"
        )
    parts, done, position, used = [], 0, 0, 0
    for height, width in sides:
        start = int(visual[used])
        parts.append(torch.arange(position, position + start - done).expand(3, -1))
        position += start - done
        rows = torch.arange(height).repeat_interleave(width)
        columns = torch.arange(width).repeat(height)
        parts.append(torch.stack([torch.zeros_like(rows), rows, columns]) + position)
        position += max(height, width)
        done, used = start + height * width, used + height * width
    tail = len(is_visual) - done
    parts.append(torch.arange(position, position + tail).expand(3, -1))
    return torch.cat(parts, dim=1)


def batch_positions(
    is_visual: Tensor, attention_mask: Tensor | None, sides: Sequence[tuple[int, int]]
) -> Tensor:
    """Positions `(3, B, T)` of padded sequences; 0 at padding.

    Args:
        is_visual: `(B, T)`.
        attention_mask: `(B, T)`, 0 at padding on either side.
        sides: of the grids of all sequences, in order.
    """
    device, is_visual = is_visual.device, is_visual.cpu()
    real = torch.ones_like(is_visual) if attention_mask is None else attention_mask.cpu().bool()
    positions = torch.zeros(3, *is_visual.shape, dtype=torch.long)
    sides = list(sides)
    for row, (visual, kept) in enumerate(zip(is_visual, real, strict=True)):
        count, taken = int(visual[kept].sum()), 0
        own: list[tuple[int, int]] = []
        while taken < count and sides:
            own.append(sides.pop(0))
            taken += own[-1][0] * own[-1][1]
        positions[:, row, kept] = sequence_positions(visual[kept], own)
    if sides:
        raise ValueError(f"image_grid_thw describes {len(sides)} pictures more than input_ids has")
    return positions.to(device)


def sides_of(grid: Tensor | None, merge_size: int) -> list[tuple[int, int]]:
    """Height and width in tokens of every row of `image_grid_thw` `(G, 3)`, which is in patches."""
    if grid is None:
        return []
    return [(height // merge_size, width // merge_size) for _, height, width in grid.tolist()]
