"""Attention of packed rows, group by group: what a mask would hide is not computed.

SDPA with a mask computes every pair of a row and hides most: of a row of five videos four fifths.
Here a group attends to itself alone: its shared tokens causally, which needs no mask, and the
samples behind them, a few at a time, to those and to themselves. It is SDPA in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
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
        pieces: of what lies behind the shared tokens: first token, behind the last, and a mask
            `(1, 1, own, shared + own)` that is added to the scores; None where nothing is shared.
    """

    start: int
    shared: int
    pieces: Sequence[tuple[int, int, Tensor | None]]


def make_blocks(
    bounds: Sequence[Sequence[Sequence[int]]], sample_ids: Tensor, dtype: torch.dtype
) -> list[list[Block]]:
    """Make the blocks of a batch.

    Args:
        bounds: of the groups of every row: first token, number of shared ones, and where the
            samples behind them are cut into pieces, the last number being the end.
        sample_ids: `(B, T)`, see `distime.model.packing`.
        dtype: of the attention.
    """
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=sample_ids.device)
    blocks = []
    for row, samples in zip(bounds, sample_ids, strict=True):
        blocks.append([])
        for start, shared, *ends in row:
            pieces = []
            for first, end in zip([start + shared, *ends], ends, strict=False):
                mask = None
                if shared:
                    own = samples[first:end]
                    hidden = (own[:, None] != own).logical_or_(
                        torch.ones_like(own, dtype=torch.bool).expand(end - first, -1).triu(1)
                    )
                    hidden = pad(hidden, (shared, 0), value=False)
                    mask = torch.where(hidden, lowest, torch.zeros_like(lowest))[None, None]
                pieces.append((first, end, mask))
            blocks[-1].append(Block(start, shared, pieces))
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

        def attend(first: int, end: int, seen: slice, mask: Tensor | None, q=q, k=k, v=v) -> Tensor:
            """From some tokens to those before them and to the ones that all see."""
            own_k, own_v = k[:, :, first:end], v[:, :, first:end]
            if mask is not None:
                own_k = torch.cat([k[:, :, seen], own_k], dim=2)
                own_v = torch.cat([v[:, :, seen], own_v], dim=2)
            return sdpa_attention_forward(module, q[:, :, first:end], own_k, own_v, mask, **kwargs)[
                0
            ]

        parts = []
        for block in row:
            seen = slice(block.start, block.start + block.shared)
            if block.shared:
                parts.append(attend(seen.start, seen.stop, seen, None))
            parts += [attend(first, end, seen, mask) for first, end, mask in block.pieces]
        padding = q.shape[2] - row[-1].pieces[-1][1]
        parts.append(parts[0].new_zeros(1, padding, *parts[0].shape[2:]))
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows), None


AttentionInterface.register(SDPA_BLOCKS, blocks_attention)
AttentionMaskInterface.register(SDPA_BLOCKS, sdpa_mask)
