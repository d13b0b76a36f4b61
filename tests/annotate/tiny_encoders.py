"""A dual encoder and an image-text-to-text model of a few thousand random parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from distime.toy.curriculum import words
from distime.toy.tiny import word_tokenizer

SIDE, PATCH, IMAGE = 32, 8, "<image>"
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
TEMPLATE = (
    "{% for turn in messages %}{% for part in turn['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
)


def pictures() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )


def write_dual_encoder(folder: Path) -> None:
    """A CLIP that knows the words of the toy, at most 16 of a text."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(words(), [])
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": 0,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(pictures(), tokenizer).save_pretrained(folder)


def write_captioner(folder: Path, *, max_positions: int = 2048) -> None:
    """A Llava that answers any words of the toy."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer([*words(), "a man opens the door and"], [IMAGE])
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 16,
        "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": max_positions,
    }  # fmt: skip
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION}, text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "vision" not in name:
            parameter.data.normal_(0, 0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    LlavaProcessor(
        pictures(), tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        image_token=IMAGE, num_additional_image_tokens=1, chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
