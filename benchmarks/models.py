"""Models for benchmarks: random weights at the sizes of a published-layout `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import Qwen2Config

from distime.model.config import DisTimeConfig

# A folder with config.json, tokenizer files and inputs.json, see `--config`.
BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench"

# Sizes of the configuration in BENCH, for where that folder is absent.
_SIZES = {
    "llm_config": {
        "vocab_size": 151_674, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
    },
    "vision_config": {
        "image_size": 224, "patch_size": 14, "hidden_size": 256, "intermediate_size": 1024,
        "num_hidden_layers": 4, "num_attention_heads": 4, "qkv_bias": True,
    },
    "dec_reg": 32, "enc_sigma": 1.0, "layer_num": 3,
}  # fmt: skip


def read_sizes(path: Path | None) -> dict:
    """Read a published `config.json` (or the folder it is in); None for the one of `BENCH`."""
    if path is None:
        path = BENCH
        if not path.is_dir():
            return _SIZES
    return json.loads((path / "config.json" if path.is_dir() else path).read_text())


def make_config(
    sizes: dict, *, image_token: int, time_token: int, frame_token: int
) -> DisTimeConfig:
    """A `DisTimeConfig` over Qwen2 with the sizes of a published configuration."""
    llm, vision = sizes["llm_config"], sizes["vision_config"]
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    text = Qwen2Config(
        **{name: llm[name] for name in [*names, "num_key_value_heads", "vocab_size"]},
        max_position_embeddings=llm["max_position_embeddings"],
    )
    tower = {name: vision[name] for name in [*names, "image_size", "patch_size"]}
    tower |= {"model_type": "internvl_vision", "attention_bias": vision["qkv_bias"]}
    return DisTimeConfig(
        text_config=text.to_dict(),
        vision_config=tower,
        image_token_id=image_token,
        time_token_id=time_token,
        frame_time_token_id=frame_token,
        image_seq_length=(vision["image_size"] // vision["patch_size"] // 2) ** 2,
        reg_max=sizes["dec_reg"],
        enc_sigma=sizes["enc_sigma"],
        layer_num=sizes["layer_num"],
    )
