"""Attention of packed rows, group by group: what a mask would hide is not computed.

SDPA with a mask computes every pair of a row and hides most: of a row of five videos four fifths.
Here a group attends to itself alone: its shared tokens causally, which needs no mask, and what lies
behind them to the whole group. It is SDPA all the same, piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SDPA_BLOCKS = "sdpa_blocks"
"""Name of this attention, to load or train a model with; without blocks it is SDPA."""


@dataclass(frozen=True)
class Block:
    """A group of a packed row.

    Attributes:
        start: first token.
        shared: number of tokens that its samples share, from there on.
        end: behind its last token.
        mask: `(1, 1, own, all)` over what lies behind the shared ones, added to their scores; None
            for a group of one sample, which shares nothing.
    """

    start: int
    shared: int
    end: int
    mask: Tensor | None


def make_blocks(
    bounds: Sequence[Sequence[tuple[int, int, int]]], sample_ids: Tensor, dtype: torch.dtype
) -> list[list[Block]]:
    """Make the blocks of a batch.

    Args:
        bounds: `start, shared, end` of the groups of every row.
        sample_ids: `(B, T)`, see `distime.model.packing`.
        dtype: of the attention.
    """
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=sample_ids.device)
    blocks = []
    for row, samples in zip(bounds, sample_ids, strict=True):
        blocks.append([])
        for start, shared, end in row:
            mask = None
            if shared:
                own, own_too = samples[start + shared : end, None], samples[None, start:end]
                hidden = own != own_too
                hidden[:, :shared] = False
                hidden |= torch.ones_like(hidden).triu(shared + 1)
                mask = torch.where(hidden, lowest, torch.zeros_like(lowest))[None, None]
            blocks[-1].append(Block(start, shared, end, mask))
    return blocks


def blocks_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    blocks: Sequence[Sequence[Block]] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, `(B, H, T, D)` each -> `(B, T, H, D)`.

    Args:
        module: of the layer.
        query: `(B, H, T, D)`.
        key: `(B, H', T, D)`.
        value: likewise.
        attention_mask: looked at only without blocks.
        blocks: of every row; what lies behind the last is padding, whose outcome is 0.
        **kwargs: as for SDPA.
    """
    if blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows = []
    for number, row in enumerate(blocks):
        q, k, v = (tensor[number : number + 1] for tensor in (query, key, value))

        def attend(start: int, first: int, end: int, mask: Tensor | None, q=q, k=k, v=v) -> Tensor:
            """From `first` to `end`, to all from `start` on."""
            q, k, v = q[:, :, first:end], k[:, :, start:end], v[:, :, start:end]
            return sdpa_attention_forward(module, q, k, v, mask, **kwargs)[0]

        parts = []
        for block in row:
            middle = block.start + block.shared
            if block.mask is None:
                parts.append(attend(block.start, block.start, block.end, None))
            else:
                parts.append(attend(block.start, block.start, middle, None))
                parts.append(attend(block.start, middle, block.end, block.mask))
        padding = q.shape[2] - row[-1].end
        parts.append(parts[0].new_zeros(1, padding, *parts[0].shape[2:]))
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows), None


AttentionInterface.register(SDPA_BLOCKS, blocks_attention)
AttentionMaskInterface.register(SDPA_BLOCKS, sdpa_mask)
