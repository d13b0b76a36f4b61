"""GPU memory of training, computed before it starts: on copies of layers that have no memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface

from distime.backbones import DisTimeForConditionalGeneration

_ATTENTION = "shapes_of_flash"
_STATE = 16
"""Bytes a trained parameter takes besides its weight, at most: gradient, float32 master, AdamW."""


class _FlashAttention(torch.autograd.Function):
    """Keeps for a backward pass, which is never run, what flash attention keeps."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output


def _attention(module, query, key, value, *_, **__) -> tuple[Tensor, None]:
    return _FlashAttention.apply(query, key, value).transpose(1, 2), None


@dataclass(frozen=True)
class Activations:
    """Bytes that the language model keeps for the backward pass of some tokens.

    Attributes:
        inputs: of all layers: what is kept where every layer is recomputed.
        layer: what one layer keeps while it is run backward.
        layers: their number.
    """

    inputs: int
    layer: int
    layers: int

    @property
    def recomputed(self) -> int:
        """In all, where every layer is recomputed."""
        return self.inputs + self.layer

    @property
    def kept(self) -> int:
        """In all, where none is."""
        return self.layers * self.layer


def activations(model: DisTimeForConditionalGeneration, tokens: int) -> Activations:
    """Count what the autograd graph of one layer keeps, with flash attention.

    Args:
        model: with what is trained chosen, in the type of its activations; it is left as it is.
        tokens: of all rows of a forward pass.
    """
    AttentionInterface.register(_ATTENTION, _attention)
    language_model = model.get_submodule(model.parts.language_model)
    layer = copy.deepcopy(language_model.layers[0]).to("meta").train()
    dtype = next(layer.parameters()).dtype
    rotary = copy.deepcopy(language_model.rotary_emb).to("meta")
    layer.self_attn.config = copy.copy(layer.self_attn.config)
    layer.self_attn.config._attn_implementation = _ATTENTION
    width, rows = model.config.get_text_config().hidden_size, model.position_rows
    hidden = torch.empty(1, tokens, width, dtype=dtype, device="meta", requires_grad=True)
    positions = torch.empty(1, tokens, dtype=torch.long, device="meta")
    angles = rotary(hidden, positions if rows == 1 else positions.expand(rows, 1, tokens))
    owned = {p.untyped_storage()._cdata for p in layer.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(hidden, position_ids=positions, position_embeddings=angles)
    layers = len(language_model.layers)
    return Activations(layers * hidden.nbytes, sum(kept.values()), layers)


def needed_bytes(model: DisTimeForConditionalGeneration, kept: int) -> int:
    """Bytes on a device that holds all of a model and its optimizer's state.

    Args:
        model: with what is trained chosen.
        kept: bytes of activations.
    """
    weights = sum(parameter.nbytes for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return weights + _STATE * trained + kept
