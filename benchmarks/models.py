"""Models for benchmarks: random weights at the sizes of a published-layout `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from transformers import Qwen2Config

from distime import DisTimeConfig

# A folder with config.json, tokenizer files and inputs.json, see `--config`.
BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench"


def bench_folder(config: Path) -> tuple[Path, dict]:
    """The folder that `--config` names, itself or by its `config.json`, and its `inputs.json`."""
    folder = config.parent if config.suffix == ".json" else config
    if not (folder / "inputs.json").is_file():
        raise SystemExit(f"{folder}: no inputs.json there; name the folder with --config")
    return folder, json.loads((folder / "inputs.json").read_text())


class Transformer(NamedTuple):
    """Sizes of a language model or a vision tower."""

    width: int
    layers: int
    heads: int

    def named(self) -> dict[str, int]:
        """The sizes under their names in a published `config.json`."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
        }


def small_sizes(
    language: Transformer, vision: Transformer, *, vocab_size: int, image_size: int
) -> dict:
    """What a published `config.json` would say of a small model."""
    text = {"vocab_size": vocab_size, "num_key_value_heads": 2, "max_position_embeddings": 32_768}
    tower = {"image_size": image_size, "patch_size": 14, "qkv_bias": True}
    return {
        "llm_config": language.named() | text,
        "vision_config": vision.named() | tower,
        "dec_reg": 32,
        "enc_sigma": 1.0,
        "layer_num": 3,
    }


def read_sizes(path: Path | None) -> dict:
    """Read a published `config.json` (or the folder it is in); None for the one of `BENCH`."""
    if path is None:
        path = BENCH
        if not path.is_dir():  # the same sizes
            return small_sizes(
                Transformer(512, 8, 8), Transformer(256, 4, 4), vocab_size=151_674, image_size=224
            )
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
