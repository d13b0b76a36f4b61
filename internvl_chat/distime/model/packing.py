"""Which tokens may see which, when several samples lie in one row.

Every token has a *group* (one video's frames and all that is asked about it; -1 is padding) and a
*sample* (whose loss it belongs to; -1 is shared by the whole group). A token sees the tokens before
it that are of its own group and either of its own sample or shared. Plain packing is the case of
one sample in every group; a shared video prefix is that of shared frames with many samples behind.
 Since a sample's tokens see just what they would see alone, at the same positions, losses and
gradients are those of the separate samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.masking_utils import create_causal_mask

from distime.model.block_attention import SDPA_BLOCKS
from distime.model.library import CACHE

SHARED = -1
PADDING = -1


def groups_from_positions(
    position_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Read packing from positions that restart at 0, the convention of transformers.

    Args:
        position_ids: `(B, T)`.
        attention_mask: `(B, T)`, 0 at padding, or None.

    Returns:
        `(group_ids, sample_ids)`, both `(B, T)`, or None if no row holds more than one sample.
    """
    real = torch.ones_like(position_ids, dtype=torch.bool)
    if attention_mask is not None:
        real = attention_mask.bool()
    starts = (position_ids == 0) & real
    if (starts.sum(-1) <= 1).all():
        return None
    ids = starts.flatten().cumsum(0).view_as(starts) - 1
    ids = ids.masked_fill(~real, PADDING)
    return ids, ids


def attention_mask_of(config: PreTrainedConfig, visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Which tokens are seen, `(B, 1, T, S)` bool, in the form that the attention adds or selects.

    Args:
        config: the language model's configuration; names the attention, "sdpa" or "eager".
        visible: true where a query may see a key.
        dtype: of the hidden states.
    """
    is_selecting = config._attn_implementation in ("sdpa", SDPA_BLOCKS)
    return visible if is_selecting else additive_mask(visible, dtype)


def attention_dtype(inputs_embeds: Tensor) -> torch.dtype:
    """In which scores of attention are added to, with embeddings such as these."""
    device = inputs_embeds.device.type
    is_autocast = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_autocast else inputs_embeds.dtype


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token is seen and the lowest number where it is not, of the shape of `visible`."""
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=visible.device)
    return torch.where(visible, torch.zeros_like(lowest), lowest)


def plain_attention_mask(config: PreTrainedConfig) -> dict[str, None] | None:
    """What tells a language model that each token sees all before it, where it can be told.

    From no mask it would conclude that positions may restart, and look: it waits for the device.

    Args:
        config: the language model's configuration.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    name = config._attn_implementation
    by_itself = name in ("sdpa", SDPA_BLOCKS) or "flash" in name
    return {"full_attention": None} if by_itself and kinds == {"full_attention"} else None


def packed_attention_mask(
    config: PreTrainedConfig, inputs_embeds: Tensor, group_ids: Tensor, sample_ids: Tensor
) -> Tensor | None:
    """Attention mask of a packed batch in the form the attention implementation wants.

    Args:
        config: the language model's configuration; names the attention implementation.
        inputs_embeds: `(B, T, C)`, for shape, dtype and device.
        group_ids: `(B, T)`, -1 at padding.
        sample_ids: `(B, T)`, -1 at shared tokens and padding.

    Returns:
        a 4-D mask, a FlexAttention block mask, or None for flash attention, which reads the
        boundaries from positions that restart.

    Raises:
        ValueError: flash attention cannot express a shared prefix or several packed rows.
    """
    if "flash" in (config._attn_implementation or ""):
        shares = ((sample_ids == SHARED) & (group_ids != PADDING)).any()
        if shares or group_ids.shape[0] > 1:
            raise ValueError(
                "flash attention cannot share a video prefix between samples or pack more than one "
                "row; load the model with attn_implementation='sdpa' or 'flex_attention', or give "
                "one packed row per batch"
            )
        return None

    if config._attn_implementation != "flex_attention":
        # In the form that is added, also for SDPA: of a bool mask it makes one in every layer, and
        # keeps each for the backward pass.
        # The rule by broadcasting: evaluated for one pair of positions after another, as
        # transformers would, it takes a tenth of a small model's step.
        same_group = group_ids.unsqueeze(-1) == group_ids.unsqueeze(-2)
        same_sample = sample_ids.unsqueeze(-1) == sample_ids.unsqueeze(-2)
        shared = (sample_ids == SHARED).unsqueeze(-2)
        visible = (same_group & (shared | same_sample)).tril().unsqueeze(1)
        return additive_mask(visible, attention_dtype(inputs_embeds))

    def is_visible(batch, head, query, key):
        same_group = group_ids[batch, query] == group_ids[batch, key]
        shared = sample_ids[batch, key] == SHARED
        return same_group & (shared | (sample_ids[batch, query] == sample_ids[batch, key]))

    return create_causal_mask(
        config=config,
        inputs_embeds=inputs_embeds,
        attention_mask=None,
        and_mask_function=is_visible,
        **{CACHE: None},
    )
