"""Names of tensors in the published layout and in ours, and the projections packed in one of them.

A table of names and two packings are all that lies between the layouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distime.backbones.internvl.config import DisTimeConfig
from distime.model.weights import CheckpointError, listed

LANGUAGE_MODELS = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
}
"""Language models of the published layout: model_type -> class there. InternLM2 is a Llama here."""

# (published, ours), with `#` for a layer number and `*` for a suffix that both share.
_VIT, _OUR_VIT = "vision_model.encoder.layers.#", "model.vision_tower.encoder.layer.#"
_EMBED, _OUR_EMBED = "vision_model.embeddings", "model.vision_tower.embeddings"
_LLM, _OUR_LLM = "language_model.model", "model.language_model"
_LAYER, _OUR_LAYER = f"{_LLM}.layers.#", f"{_OUR_LLM}.layers.#"
_COMMON = [
    (f"{_EMBED}.class_embedding", f"{_OUR_EMBED}.cls_token"),
    (f"{_EMBED}.position_embedding", f"{_OUR_EMBED}.position_embeddings"),
    (f"{_EMBED}.patch_embedding.*", f"{_OUR_EMBED}.patch_embeddings.projection.*"),
    (f"{_VIT}.ls1", f"{_OUR_VIT}.lambda_1"),
    (f"{_VIT}.ls2", f"{_OUR_VIT}.lambda_2"),
    (f"{_VIT}.norm1.*", f"{_OUR_VIT}.layernorm_before.*"),
    (f"{_VIT}.norm2.*", f"{_OUR_VIT}.layernorm_after.*"),
    (f"{_VIT}.attn.proj.*", f"{_OUR_VIT}.attention.projection_layer.*"),
    (f"{_VIT}.attn.q_norm.*", f"{_OUR_VIT}.attention.q_norm.*"),
    (f"{_VIT}.attn.k_norm.*", f"{_OUR_VIT}.attention.k_norm.*"),
    (f"{_VIT}.mlp.*", f"{_OUR_VIT}.mlp.*"),
    ("mlp1.0.*", "model.multi_modal_projector.layer_norm.*"),
    ("mlp1.1.*", "model.multi_modal_projector.linear_1.*"),
    ("mlp1.3.*", "model.multi_modal_projector.linear_2.*"),
    ("time_enc.layers.#.*", "time_encoder.layers.#.*"),
    ("time_gen.layers.#.*", "time_decoder.layers.#.*"),
]
_QWEN = [
    ("language_model.lm_head.weight", "lm_head.weight"),
    (f"{_LLM}.*", f"{_OUR_LLM}.*"),
]
_INTERNLM2 = [
    ("language_model.output.weight", "lm_head.weight"),
    (f"{_LLM}.tok_embeddings.weight", f"{_OUR_LLM}.embed_tokens.weight"),
    (f"{_LLM}.norm.weight", f"{_OUR_LLM}.norm.weight"),
    (f"{_LAYER}.attention.wo.*", f"{_OUR_LAYER}.self_attn.o_proj.*"),
    (f"{_LAYER}.feed_forward.w1.*", f"{_OUR_LAYER}.mlp.gate_proj.*"),
    (f"{_LAYER}.feed_forward.w2.*", f"{_OUR_LAYER}.mlp.down_proj.*"),
    (f"{_LAYER}.feed_forward.w3.*", f"{_OUR_LAYER}.mlp.up_proj.*"),
    (f"{_LAYER}.attention_norm.*", f"{_OUR_LAYER}.input_layernorm.*"),
    (f"{_LAYER}.ffn_norm.*", f"{_OUR_LAYER}.post_attention_layernorm.*"),
]
_NAMES = {
    "qwen2": _COMMON + _QWEN,
    "qwen3": _COMMON + _QWEN,
    "internlm2": _COMMON + _INTERNLM2,
}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"))


# What is packed there and three projections here: (published, ours with q for q, k and v).
_VISION_PACKED = (f"{_VIT}.attn.qkv.*", f"{_OUR_VIT}.attention.q_proj.*")
_INTERNLM2_PACKED = (f"{_LAYER}.attention.wqkv.*", f"{_OUR_LAYER}.self_attn.q_proj.*")
_EXPECTATION = "time_project.project"


def _translate(name: str, pair: tuple[str, str]) -> str | None:
    """Rename by one line of a table; None if it is about other names."""
    source, target = pair
    match = _pattern(source).fullmatch(name)
    if match is None:
        return None
    for group in match.groups():
        target = re.sub(r"[#*]", group, target, count=1)
    return target


def _rename(name: str, table: list[tuple[str, str]]) -> str | None:
    return next((new for pair in table if (new := _translate(name, pair)) is not None), None)


def from_published(
    path: Path, tensors: dict[str, Tensor], llm_config: dict[str, Any], llm: str
) -> dict[str, Tensor]:
    """Rename and unpack the tensors of a published checkpoint.

    Args:
        path: named in errors.
        tensors: by their published names, LoRA merged.
        llm_config: of the checkpoint.
        llm: family of the language model, one of `LANGUAGE_MODELS`.

    Raises:
        CheckpointError: a tensor is unknown.
    """
    translated: dict[str, Tensor] = {}
    unexpected = []
    for name, tensor in tensors.items():
        packed = _translate(name, _VISION_PACKED)
        parts = tensor.chunk(3) if packed else None
        if packed is None and llm == "internlm2":
            packed = _translate(name, _INTERNLM2_PACKED)
            parts = _split_wqkv(tensor, llm_config) if packed else None
        if name == _EXPECTATION:
            if not torch.equal(tensor.float(), torch.arange(len(tensor), dtype=torch.float32)):
                raise CheckpointError(f"{path}: {_EXPECTATION} is not 0, 1, ..., reg_max")
        elif packed is not None:
            for part, rows in zip("qkv", parts, strict=True):
                translated[packed.replace("q_proj", f"{part}_proj")] = rows.contiguous()
        elif (ours := _rename(name, _NAMES[llm])) is not None:
            translated[ours] = tensor
        else:
            unexpected.append(name)
    # Buffers of old rotary embeddings are computed, not learned.
    unexpected = [name for name in unexpected if not name.endswith("rotary_emb.inv_freq")]
    if unexpected:
        raise CheckpointError(f"{path}: unexpected tensors: {listed(sorted(unexpected))}")
    return translated


def _heads(llm_config: dict[str, Any]) -> tuple[int, int]:
    """Number of key-value heads, and of query heads for each."""
    kv_heads = llm_config.get("num_key_value_heads") or llm_config["num_attention_heads"]
    return kv_heads, llm_config["num_attention_heads"] // kv_heads


def _split_wqkv(tensor: Tensor, llm_config: dict[str, Any]) -> list[Tensor]:
    """InternLM2 packs, for each key-value head, its query heads, then the key, then the value."""
    kv_heads, queries = _heads(llm_config)
    by_head = tensor.unflatten(0, (kv_heads, queries + 2, -1))
    parts = by_head.split([queries, 1, 1], dim=1)
    return [part.flatten(0, 2).contiguous() for part in parts]


def _join_wqkv(q: Tensor, k: Tensor, v: Tensor, llm_config: dict[str, Any]) -> Tensor:
    kv_heads, queries = _heads(llm_config)
    parts = [
        part.unflatten(0, (kv_heads, count, -1)) for part, count in ((q, queries), (k, 1), (v, 1))
    ]
    return torch.cat(parts, dim=1).flatten(0, 2).contiguous()


def to_published(state: Mapping[str, Tensor], config: DisTimeConfig) -> dict[str, Tensor]:
    """Rename and pack the state dict of a DisTime model.

    Raises:
        CheckpointError: a tensor has no place in the published layout.
    """
    state = dict(state)
    llm = language_model_family(config)
    reverse = [(ours, theirs) for theirs, ours in _NAMES[llm]]
    packings = [(_VISION_PACKED, lambda q, k, v: torch.cat([q, k, v]))]
    if llm == "internlm2":
        heads = config.text_config.to_dict()
        packings.append((_INTERNLM2_PACKED, lambda q, k, v: _join_wqkv(q, k, v, heads)))
    result: dict[str, Tensor] = {}
    for name in list(state):
        for (theirs, ours), join in packings:
            if (packed := _translate(name, (ours, theirs))) is not None:
                result[packed] = join(
                    *(state.pop(name.replace("q_proj", f"{p}_proj")) for p in "qkv")
                )
    for name, tensor in state.items():
        theirs = _rename(name, reverse)
        if theirs is None:
            raise CheckpointError(f"tensor {name} has no name in the published layout")
        result[theirs] = tensor
    dtype = state["time_decoder.layers.0.weight"].dtype
    result[_EXPECTATION] = torch.arange(config.reg_max + 1, dtype=dtype)
    return result


def language_model_family(config: DisTimeConfig) -> str:
    """What the published layout calls the language model of a configuration.

    Raises:
        CheckpointError: the published layout has no such language model.
    """
    kind = config.text_config.model_type
    if (family := {"llama": "internlm2"}.get(kind, kind)) not in LANGUAGE_MODELS:
        raise CheckpointError(
            f"the published layout has no language model {kind!r}, only "
            f"{', '.join(LANGUAGE_MODELS)}: keep ours"
        )
    return family
