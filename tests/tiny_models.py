"""A model of a few thousand parameters, for tests that need one."""

from __future__ import annotations

import torch
from transformers import Qwen2Config

from distime import DisTimeConfig, DisTimeForConditionalGeneration

IM_END, IMAGE, TIME, FRAME, VOCABULARY = 1, 2, 3, 4, 40
TILE_TOKENS = 1


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


def make_tiny_model(**overrides) -> DisTimeForConditionalGeneration:
    """A random model with weights large enough that different inputs give different outputs."""
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration(tiny_config(**overrides))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.generation_config.eos_token_id = IM_END
    model.generation_config.pad_token_id = 0
    return model.eval()
