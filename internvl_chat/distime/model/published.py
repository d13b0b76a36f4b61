"""Reading and writing the published layout (`vision_model.* / mlp1.* / language_model.*`).

Reads a base InternVL2.5, a published DisTime checkpoint, and one still wrapped in LoRA; with Qwen2
or InternLM2 as language model and either style of InternViT. Nothing here runs remote code: the
layout is a table of names, two packed projections, and a configuration.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, PreTrainedModel, Qwen2Config

from distime.errors import DisTimeError
from distime.model.config import DisTimeConfig
from distime.model.tokens import (
    FRAME_TIME_REF,
    IM_END,
    IMG_CONTEXT,
    SPECIAL_TOKENS,
    TIME_STAMP,
)

logger = logging.getLogger(__name__)

MODEL_TYPE = "internvl_chat"
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
_QWEN2 = [
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
_NAMES = {"qwen2": _COMMON + _QWEN2, "internlm2": _COMMON + _INTERNLM2}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"))


# What is packed there and three projections here: (published, ours with q for q, k and v).
_VISION_PACKED = (f"{_VIT}.attn.qkv.*", f"{_OUR_VIT}.attention.q_proj.*")
_INTERNLM2_PACKED = (f"{_LAYER}.attention.wqkv.*", f"{_OUR_LAYER}.self_attn.q_proj.*")
_EXPECTATION = "time_project.project"


class CheckpointError(DisTimeError):
    """A checkpoint cannot be read as what it says it is; the message names file and tensors."""


@dataclass
class PublishedCheckpoint:
    """A published checkpoint, translated.

    Args:
        config: our configuration.
        tensors: state dict in our names.
        dtype: of the weights in the file.
        fresh: names that the checkpoint rightly lacks and that are initialised anew.
        generation_config: stop and pad token.
    """

    config: DisTimeConfig
    tensors: dict[str, Tensor]
    dtype: torch.dtype
    fresh: list[str] = field(default_factory=list)
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)


# ---------------------------------------------------------------------- files


def is_published(path: Path) -> bool:
    """Whether a folder holds a checkpoint in the published layout."""
    config = path / "config.json"
    return config.is_file() and read_json(config).get("model_type") == MODEL_TYPE


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder: safetensors or `.bin`, one file or shards with an index.

    Raises:
        CheckpointError: no weights are there, a shard is missing or damaged, or a shard lacks a
            tensor that the index promises.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{name}.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not weight_map:
                raise CheckpointError(f"{index}: has no weight_map")
            tensors: dict[str, Tensor] = {}
            for shard in sorted(set(weight_map.values())):
                # An index names files beside it; anything else is damage or mischief.
                if Path(shard).name != shard:
                    raise CheckpointError(f"{index}: shard {shard!r} is not a plain file name")
                tensors |= read_file(path / shard)
            if missing := sorted(weight_map.keys() - tensors.keys()):
                raise CheckpointError(f"{index}: its shards lack {_listed(missing)}")
            return tensors
        if (path / name).is_file():
            return read_file(path / name)
    raise CheckpointError(
        f"{path}: no weights found; looked for model.safetensors, pytorch_model.bin and their "
        ".index.json files"
    )


def read_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one `.safetensors` or `.bin` file.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".bin":
            return torch.load(path, map_location="cpu", weights_only=True)
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the shard is missing; download it again") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or unreadable: {error}; get it again") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(
            f"{path}: holds more than tensors; it is not loaded, since unpickling it could run "
            f"code ({error})"
        ) from error


def _listed(names: list[str], limit: int = 20) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def check_loading(path: Path | str, info: Any, may_miss: list[str] = ()) -> None:
    """Raise unless every tensor found its place.

    Args:
        path: named in the error.
        info: the loading info of transformers' `from_pretrained`.
        may_miss: names that are initialised on purpose.

    Raises:
        CheckpointError: lists the missing, unexpected and wrongly shaped tensors.
    """
    info = info if isinstance(info, dict) else vars(info)
    problems = []
    missing = sorted(set(info.get("missing_keys", ())) - set(may_miss))
    if missing:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected := sorted(info.get("unexpected_keys", ())):
        problems.append(f"unexpected: {_listed(unexpected)}")
    if mismatched := sorted(str(item) for item in info.get("mismatched_keys", ())):
        problems.append(f"wrong shape: {_listed(mismatched)}")
    if problems:
        raise CheckpointError(f"{path}: tensors do not fit the config; " + "; ".join(problems))


# ---------------------------------------------------------------------- reading


def read(path: Path, overrides: dict[str, Any] | None = None) -> PublishedCheckpoint:
    """Read a checkpoint folder in the published layout.

    Args:
        path: folder with config.json, the tokenizer files and the weights.
        overrides: fields of our configuration to set.

    Raises:
        CheckpointError: with the names of what is missing, unexpected or wrongly shaped.
    """
    source = read_json(path / "config.json")
    tensors = _merge_lora(path, source, read_tensors(path))
    token_ids, tokenizer_length = _special_token_ids(path)
    has_time = any(name.startswith(("time_enc.", "time_gen.")) for name in tensors)
    llm = _llm_family(path, source)
    translated = _from_published(path, tensors, source["llm_config"], llm)
    config = _our_config(path, source, llm)
    for name, value in (overrides or {}).items():
        setattr(config, name, value)

    rows = translated["lm_head.weight"].shape[0]
    new_tokens = [token for token in SPECIAL_TOKENS if token not in token_ids]
    if has_time and new_tokens:
        raise CheckpointError(f"{path}: its tokenizer lacks {', '.join(new_tokens)}")
    for token in new_tokens:
        token_ids[token] = tokenizer_length
        tokenizer_length += 1
    config.image_token_id = token_ids[IMG_CONTEXT]
    config.time_token_id = token_ids[TIME_STAMP]
    config.frame_time_token_id = token_ids[FRAME_TIME_REF]

    fresh = []
    if new_tokens:
        _resize_vocabulary(translated, tokenizer_length, config)
        logger.info(
            "%s: %d new token rows (%s): input rows drawn from N(0, %g), output rows the mean of "
            "the %d old ones",
            path, tokenizer_length - rows, ", ".join(new_tokens),
            config.text_config.initializer_range, rows,
        )  # fmt: skip
    if not has_time:
        fresh = [
            f"{module}.layers.{layer}.{kind}"
            for module in ("time_encoder", "time_decoder")
            for layer in range(config.layer_num)
            for kind in ("weight", "bias")
        ]
        logger.info("%s: a base checkpoint; time encoder and time decoder start fresh", path)
    end = token_ids.get(IM_END, source["llm_config"].get("eos_token_id"))
    pad = source["llm_config"].get("pad_token_id")
    pad = token_ids.get("<|endoftext|>", end) if pad is None else pad
    generation = GenerationConfig(eos_token_id=end, pad_token_id=pad)
    dtype = translated["lm_head.weight"].dtype
    return PublishedCheckpoint(config, translated, dtype, fresh, generation)


def _llm_family(path: Path, source: dict[str, Any]) -> str:
    for key in ("llm_config", "vision_config"):
        if not isinstance(source.get(key), dict):
            raise CheckpointError(f"{path / 'config.json'}: has no {key}")
    llm = source["llm_config"]
    family = llm.get("model_type")
    if family not in ("qwen2", "internlm2"):
        known = {"Qwen2ForCausalLM": "qwen2", "InternLM2ForCausalLM": "internlm2"}
        family = known.get((llm.get("architectures") or [""])[0])
    if family is None:
        raise CheckpointError(
            f"{path / 'config.json'}: language model {llm.get('model_type')!r} is not supported; "
            "InternVL2.5 has qwen2 or internlm2"
        )
    return family


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return `W + scale * B A`, computed in float32 and rounded once."""
    return (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)


def _merge_lora(
    path: Path, source: dict[str, Any], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Fold `W + alpha / r * B A` into each adapted layer; without LoRA nothing changes."""
    wrapped = {"language_model.": "use_llm_lora", "vision_model.": "use_backbone_lora"}
    if not any(".base_model.model." in name for name in tensors):
        return tensors
    merged: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        plain = name.replace(".base_model.model.", ".", 1).replace(".base_layer.", ".")
        merged[plain] = tensor
    adapters = [name for name in tensors if ".lora_A." in name]
    for name_a in adapters:
        name_b = name_a.replace(".lora_A.", ".lora_B.")
        plain = re.sub(r"\.lora_A\.[^.]+\.", ".", name_a).replace(".base_model.model.", ".", 1)
        if name_b not in tensors or plain not in merged:
            raise CheckpointError(f"{path}: LoRA tensor {name_a} lacks its partner or its layer")
        a, b, base = tensors[name_a], tensors[name_b], merged[plain]
        prefix = next(prefix for prefix in wrapped if plain.startswith(prefix))
        rank = int(source.get(wrapped[prefix]) or a.shape[0])
        if rank != a.shape[0]:
            raise CheckpointError(
                f"{path}: config.json says {wrapped[prefix]}={rank}, but {name_a} has rank "
                f"{a.shape[0]}"
            )
        # The published wrapper always sets alpha to twice the rank.
        merged[plain] = merged_weight(base, a, b, 2.0)
    logger.info("%s: merged LoRA into %d layers", path, len(adapters))
    return merged


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


def _from_published(
    path: Path, tensors: dict[str, Tensor], llm_config: dict[str, Any], llm: str
) -> dict[str, Tensor]:
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
        raise CheckpointError(f"{path}: unexpected tensors: {_listed(sorted(unexpected))}")
    embedding, head = "model.language_model.embed_tokens.weight", "lm_head.weight"
    if head not in translated and llm_config.get("tie_word_embeddings") and embedding in translated:
        translated[head] = translated[embedding]
    if missing := [name for name in (embedding, head) if name not in translated]:
        raise CheckpointError(f"{path}: missing tensors: {_listed(missing)}")
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


def _special_token_ids(path: Path) -> tuple[dict[str, int], int]:
    """Ids of the added tokens, and the number of tokens, from whichever tokenizer file says so."""
    ids: dict[str, int] = {}
    added, config, fast = (
        path / name for name in ("added_tokens.json", "tokenizer_config.json", "tokenizer.json")
    )
    if fast.is_file():
        ids |= {token["content"]: token["id"] for token in read_json(fast).get("added_tokens", [])}
    if added.is_file():
        ids |= read_json(added)
    if config.is_file():
        decoder = read_json(config).get("added_tokens_decoder", {})
        ids |= {token["content"]: int(index) for index, token in decoder.items()}
    if IMG_CONTEXT not in ids:
        raise CheckpointError(
            f"{path}: no tokenizer file there names {IMG_CONTEXT}; looked in added_tokens.json, "
            "tokenizer_config.json and tokenizer.json"
        )
    return ids, max(ids.values()) + 1


def _resize_vocabulary(tensors: dict[str, Tensor], rows: int, config: DisTimeConfig) -> None:
    """Grow both embeddings to `rows`, as published: output rows the mean, input rows random."""
    head, embedding = "lm_head.weight", "model.language_model.embed_tokens.weight"
    old_head, old_embedding = tensors[head], tensors[embedding]
    count = rows - old_head.shape[0]
    if count > 0:
        mean = old_head.float().mean(0).to(old_head.dtype)
        noise = torch.randn(count, old_embedding.shape[1]) * config.text_config.initializer_range
        tensors[head] = torch.cat([old_head, mean.expand(count, -1)])
        tensors[embedding] = torch.cat([old_embedding, noise.to(old_embedding.dtype)])
    else:
        tensors[head], tensors[embedding] = old_head[:rows], old_embedding[:rows]
    config.text_config.vocab_size = rows


# ---------------------------------------------------------------------- configuration

_SHARED_LLM_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range",
    "rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id", "pad_token_id",
    "tie_word_embeddings", "attention_dropout", "use_sliding_window", "sliding_window",
    "max_window_layers",
)  # fmt: skip


def _our_config(path: Path, source: dict[str, Any], llm: str) -> DisTimeConfig:
    llm_config, vision = source["llm_config"], source["vision_config"]
    for key, supported in (("ps_version", "v2"), ("select_layer", -1), ("downsample_ratio", 0.5)):
        if source.get(key, supported) != supported:
            raise CheckpointError(
                f"{path / 'config.json'}: {key}={source[key]!r}; only {supported!r} is supported, "
                "which every InternVL2.5 checkpoint has"
            )
    text = {key: llm_config[key] for key in _SHARED_LLM_KEYS if key in llm_config}
    theta = text.pop("rope_theta", 10000.0)
    scaling = llm_config.get("rope_scaling") or {}
    text["rope_parameters"] = {
        "rope_type": scaling.get("rope_type", scaling.get("type", "default")),
        "rope_theta": float(theta),
        **{key: value for key, value in scaling.items() if key not in ("type", "rope_type")},
    }
    if llm == "qwen2":
        text_config = Qwen2Config(**text)
    else:
        for key in ("use_sliding_window", "sliding_window", "max_window_layers"):
            text.pop(key, None)
        bias = bool(llm_config.get("bias", False))
        text_config = LlamaConfig(**text, attention_bias=bias)
    image_size = source.get("force_image_size") or vision["image_size"]
    if image_size != vision["image_size"]:
        logger.warning(
            "%s: force_image_size=%s differs from the vision tower's %s; positions are resized",
            path, image_size, vision["image_size"],
        )  # fmt: skip
    vision_config = {
        "hidden_size": vision["hidden_size"],
        "num_hidden_layers": vision["num_hidden_layers"],
        "num_attention_heads": vision["num_attention_heads"],
        "intermediate_size": vision["intermediate_size"],
        "hidden_act": vision.get("hidden_act", "gelu"),
        "norm_type": vision.get("norm_type", "layer_norm"),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        "attention_bias": vision.get("qkv_bias", True),
        "use_qk_norm": vision.get("qk_normalization", False),
        "attention_dropout": vision.get("attention_dropout", 0.0),
        "hidden_dropout_prob": vision.get("dropout", 0.0),
        "initializer_range": vision.get("initializer_range", 0.02),
        "layer_scale_init_value": vision.get("initializer_factor", 0.1),
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "num_channels": vision.get("num_channels", 3),
        "use_mean_pooling": True,
    }
    return DisTimeConfig(
        text_config=text_config.to_dict(),
        vision_config=vision_config | {"model_type": "internvl_vision"},
        image_seq_length=(image_size // vision["patch_size"]) ** 2 // 4,
        downsample_ratio=0.5,
        tie_word_embeddings=bool(llm_config.get("tie_word_embeddings", False)),
        reg_max=source.get("dec_reg", 32),
        enc_sigma=float(source.get("enc_sigma", 1.0)),
        layer_num=source.get("layer_num", 3),
    )


def _published_config(config: DisTimeConfig, dtype: torch.dtype) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    llm = "qwen2" if text.model_type == "qwen2" else "internlm2"
    llm_config = {key: getattr(text, key) for key in _SHARED_LLM_KEYS if hasattr(text, key)}
    rope = dict(text.rope_parameters)
    llm_config["rope_theta"] = rope.pop("rope_theta")
    rope_type = rope.pop("rope_type")
    if rope_type != "default":
        llm_config["rope_scaling"] = {"type": rope_type, **rope}
    llm_config |= {
        "model_type": llm,
        "architectures": ["Qwen2ForCausalLM" if llm == "qwen2" else "InternLM2ForCausalLM"],
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    if llm == "internlm2":
        llm_config["bias"] = text.attention_bias
    size, patch = vision.image_size[0], vision.patch_size[0]
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["InternVLChatModelDisTime"],
        "dec_reg": config.reg_max,
        "enc_sigma": config.enc_sigma,
        "layer_num": config.layer_num,
        "template": "internvl2_5",
        "ps_version": "v2",
        "select_layer": -1,
        "downsample_ratio": config.downsample_ratio,
        "force_image_size": int((config.image_seq_length * 4) ** 0.5) * patch,
        "use_llm_lora": 0,
        "use_backbone_lora": 0,
        "use_thumbnail": True,
        "dynamic_image_size": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 6,
        "pad2square": False,
        "hidden_size": text.hidden_size,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": None,
        "llm_config": llm_config,
        "vision_config": {
            "model_type": "intern_vit_6b",
            "architectures": ["InternVisionModel"],
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "intermediate_size": vision.intermediate_size,
            "hidden_act": vision.hidden_act,
            "norm_type": vision.norm_type,
            "layer_norm_eps": vision.layer_norm_eps,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": vision.use_qk_norm,
            "attention_dropout": vision.attention_dropout,
            "dropout": vision.hidden_dropout_prob,
            "drop_path_rate": 0.0,
            "initializer_range": vision.initializer_range,
            "initializer_factor": vision.layer_scale_init_value,
            "image_size": size,
            "patch_size": patch,
            "num_channels": vision.num_channels,
        },
    }


# ---------------------------------------------------------------------- writing


def to_published(model: PreTrainedModel) -> dict[str, Tensor]:
    """State dict of a DisTime model under the published names."""
    config, state = model.config, model.state_dict()
    llm = "qwen2" if config.text_config.model_type == "qwen2" else "internlm2"
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
    dtype = model.time_decoder.layers[0].weight.dtype
    result[_EXPECTATION] = torch.arange(config.reg_max + 1, dtype=dtype)
    return result


def write(model: PreTrainedModel, folder: Path, max_shard_size: int | str = "5GB") -> None:
    """Write config and weights of a model into a folder in the published layout.

    Args:
        model: a DisTime model.
        folder: made if it is not there.
        max_shard_size: bytes of a weight file, above which there are several and an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in to_published(model).items()}
    config = _published_config(model.config, tensors[_EXPECTATION].dtype)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    save_torch_state_dict(tensors, folder, max_shard_size=max_shard_size, metadata={"format": "pt"})
