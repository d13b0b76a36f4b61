"""A dual encoder and an image-text-to-text model of a few thousand random parameters."""

from __future__ import annotations

import json
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
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
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


def write_qwen_captioner(folder: Path) -> None:
    """A Qwen2.5-VL, whose processor has a part for videos that needs torchvision."""
    torch.manual_seed(0)
    tokens = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer = word_tokenizer([*words(), "a man opens the door and"], tokens)
    image, video, start, end = tokenizer.convert_tokens_to_ids(tokens)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "bos_token_id": 0, **ends,
        "rope_parameters": {
            "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0
        },
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
        "out_hidden_size": 32, "fullatt_block_indexes": [0], "patch_size": 14, "window_size": 56,
    }  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
        )  # fmt: skip
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.chat_template = TEMPLATE.replace(
        "<image>", "<|vision_start|><|image_pad|><|vision_end|>"
    )
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=4 * 28 * 28).save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    known = json.loads(file.read_text()) | {"processor_class": "Qwen2_5_VLProcessor"}
    file.write_text(json.dumps(known))
