"""What the collator says of rows, for attention that computes no more than it must."""

from __future__ import annotations

import pytest
import torch
from backbone_samples import assert_same, video
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from distime.data import collator
from distime.data.collator import Collator
from distime.model.block_attention import SDPA_BLOCKS
from distime.train.objectives.base import Objective


def loss_and_gradients(tiny, attention, *rows):
    """Of a step as the trainer makes it."""
    ids = tiny.processor.token_ids
    batch = Collator(ids.pad, tiny.processor.positions, ids)(rows)
    tiny.model.config.get_text_config()._attn_implementation = attention
    tiny.model.train().zero_grad()
    output = Objective.run(tiny.model, batch, None)
    output.loss.backward()
    parts = (output.loss, output.text_loss, output.distribution_loss, output.iou_loss)
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in tiny.model.named_parameters()
        if not name.startswith(tiny.model.parts.unused)
    }
    return torch.stack([part.detach() for part in parts]), gradients


def shared_groups(tiny):
    return [
        tiny.about_video(video(1), (1, 1), (2, 0), (3, 3)),
        tiny.about_video(video(2, frames=6), (2, 0), (3, 3)),
        tiny.text((4, 0)),
    ]


@pytest.mark.parametrize("packed", ["plain", "shared"])
def test_blocks_are_what_a_mask_would_leave(tiny, packed, monkeypatch):
    monkeypatch.setattr(collator, "_TOKENS_OF_A_PIECE", 12)  # some samples alone, some together
    if packed == "shared" and (reason := tiny.model.limits.get("share_video_prefix")):
        pytest.skip(reason)
    groups = tiny.groups() if packed == "plain" else shared_groups(tiny)
    rows = groups[:2], groups[2:]  # of unequal lengths: one is padded
    expected = loss_and_gradients(tiny, "sdpa", *rows)
    assert_same(loss_and_gradients(tiny, SDPA_BLOCKS, *rows), expected)


def flash_stand_in(
    module, query, key, value, attention_mask, cu_seq_lens_q=None, cu_seq_lens_k=None,
    max_length_q=None, max_length_k=None, scaling=None, **_,
):  # fmt: skip
    """Flash attention over the sequences that it is told of, on a CPU."""
    assert attention_mask is None and cu_seq_lens_q is cu_seq_lens_k
    bounds = cu_seq_lens_q.tolist()
    assert cu_seq_lens_q.dtype == torch.int32 and bounds[-1] == query.shape[0] * query.shape[2]
    lengths = [end - start for start, end in zip(bounds, bounds[1:], strict=False)]
    assert max_length_q == max_length_k == max(lengths)
    groups = query.shape[1] // key.shape[1]
    key, value = (
        one.repeat_interleave(groups, 1, output_size=query.shape[1]) for one in (key, value)
    )
    flat = [one.transpose(1, 2).flatten(0, 1) for one in (query, key, value)]
    pieces = zip(*(one.split(lengths) for one in flat), strict=True)
    attended = [
        scaled_dot_product_attention(
            *(part.transpose(0, 1) for part in piece), is_causal=True, scale=scaling
        ).transpose(0, 1)
        for piece in pieces
    ]
    return torch.cat(attended).view(query.transpose(1, 2).shape), None


AttentionInterface.register("flash_stand_in", flash_stand_in)


@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_flash_attention_is_told_where_samples_end(tiny, rows):
    groups = tiny.groups()
    rows = [[group] for group in groups] if rows == "padded" else [groups[:2], groups[2:]]
    expected = loss_and_gradients(tiny, "sdpa", *rows)
    assert_same(loss_and_gradients(tiny, "flash_stand_in", *rows), expected)
