"""Fixtures that several test folders share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config

from distime.model.config import DisTimeConfig
from distime.model.modeling import DisTimeForConditionalGeneration

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"

IM_END, IMAGE, TIME, FRAME, VOCABULARY = 1, 2, 3, 4, 40
TILE_TOKENS = 1


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Tensors recorded from the published implementation; not part of the repository."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no recorded tensors of the published implementation at {SHARED / 'golden'}")
    return SHARED / "golden"


@dataclass
class Golden:
    """One recorded model: its checkpoint folder, its tensors, and the numbers beside them."""

    checkpoint: Path
    tensors: dict[str, torch.Tensor]
    numbers: dict
    pixels: dict[str, torch.Tensor]

    def case(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors below `prefix/`, by what follows it."""
        prefix += "/"
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


@pytest.fixture(scope="session")
def load_golden(golden_root):
    """Load a recorded model by its folder's name."""

    def load(variant: str) -> Golden:
        folder = golden_root / variant
        if not folder.is_dir():
            pytest.skip(f"{folder} is absent")
        return Golden(
            folder / "checkpoint",
            load_file(folder / "cases.safetensors"),
            json.loads((folder / "cases.json").read_text()),
            load_file(golden_root / "common" / "pixels.safetensors"),
        )

    return load


def tiny_config(**overrides) -> DisTimeConfig:
    """A model of a few thousand parameters: one image token per 8 x 8 tile."""
    text = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    vision = {
        "model_type": "internvl_vision", "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
        "attention_bias": True,
    }  # fmt: skip
    settings = {
        "text_config": text.to_dict(), "vision_config": vision, "image_token_id": IMAGE,
        "image_seq_length": TILE_TOKENS, "reg_max": 8, "layer_num": 2, "time_token_id": TIME,
        "frame_time_token_id": FRAME,
    }  # fmt: skip
    return DisTimeConfig(**settings | overrides)


@pytest.fixture
def tiny_model() -> DisTimeForConditionalGeneration:
    """A random model with weights large enough that different inputs give different outputs."""
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration(tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.generation_config.eos_token_id = IM_END
    model.generation_config.pad_token_id = 0
    return model.eval()
