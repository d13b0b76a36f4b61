"""The configuration of the published layout, and ours made from it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from distime.backbones.internvl.config import DisTimeConfig
from distime.backbones.internvl.published.names import LANGUAGE_MODELS, language_model_family
from distime.model.weights import CheckpointError

logger = logging.getLogger(__name__)

MODEL_TYPE = "internvl_chat"
_SHARED_LLM_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range",
    "rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id", "pad_token_id",
    "tie_word_embeddings", "attention_dropout", "use_sliding_window", "sliding_window",
    "max_window_layers",
)  # fmt: skip
_QWEN3_KEYS = ("head_dim", "attention_bias")


def our_config(path: Path, source: dict[str, Any], llm: str) -> DisTimeConfig:
    """Make our configuration from the published one.

    Args:
        path: folder of the checkpoint, named in errors.
        source: its config.json.
        llm: family of the language model.

    Raises:
        CheckpointError: it is of a kind that InternVL 2.5, 3 and 3.5 do not have.
    """
    llm_config, vision = source["llm_config"], source["vision_config"]
    for key, supported in (("ps_version", "v2"), ("select_layer", -1), ("downsample_ratio", 0.5)):
        if source.get(key, supported) != supported:
            raise CheckpointError(
                f"{path / 'config.json'}: {key}={source[key]!r}; only {supported!r} is supported, "
                "which every checkpoint of InternVL 2.5, 3 and 3.5 has"
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
    elif llm == "qwen3":
        own = {key: llm_config[key] for key in _QWEN3_KEYS if key in llm_config}
        text_config = Qwen3Config(**text, **own)
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


def published_config(config: DisTimeConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Make the published config.json from our configuration."""
    text, vision = config.text_config, config.vision_config
    llm = language_model_family(config)
    llm_config = {key: getattr(text, key) for key in _SHARED_LLM_KEYS if hasattr(text, key)}
    rope = dict(text.rope_parameters)
    llm_config["rope_theta"] = rope.pop("rope_theta")
    rope_type = rope.pop("rope_type")
    if rope_type != "default":
        llm_config["rope_scaling"] = {"type": rope_type, **rope}
    llm_config |= {
        "model_type": llm,
        "architectures": [LANGUAGE_MODELS[llm]],
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    if llm == "internlm2":
        llm_config["bias"] = text.attention_bias
    elif llm == "qwen3":
        llm_config |= {key: getattr(text, key) for key in _QWEN3_KEYS}
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


def llm_family(path: Path, source: dict[str, Any]) -> str:
    """Tell the language model of a published config.json: one of `LANGUAGE_MODELS`.

    Raises:
        CheckpointError: it is another one, or the configuration has none.
    """
    for key in ("llm_config", "vision_config"):
        if not isinstance(source.get(key), dict):
            raise CheckpointError(f"{path / 'config.json'}: has no {key}")
    llm = source["llm_config"]
    by_class = {name: family for family, name in LANGUAGE_MODELS.items()}
    family = llm.get("model_type")
    if family not in LANGUAGE_MODELS:
        family = by_class.get((llm.get("architectures") or [""])[0])
    if family is None:
        raise CheckpointError(
            f"{path / 'config.json'}: language model {llm.get('model_type')!r} is not supported; "
            f"there are {', '.join(LANGUAGE_MODELS)}"
        )
    return family
