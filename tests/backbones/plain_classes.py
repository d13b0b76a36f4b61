"""How the plain class of transformers is called with the inputs of a backbone's processor.

One function for every backbone: the model and the inputs (`input_ids`, `attention_mask`, and what
`Backbone.video` and `Backbone.images` make) -> keyword arguments of the plain class's base model.
"""

from __future__ import annotations

import torch
from transformers import (
    InternVLForConditionalGeneration,
    LlavaForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

PLAIN_CLASS = {
    "internvl": InternVLForConditionalGeneration,
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "llava": LlavaForConditionalGeneration,
}


def same(model, inputs):
    """The same names."""
    return inputs


def llava_onevision(model, inputs):
    """Videos and pictures have a dimension each of their own there, and pictures their sizes."""
    kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if "pixel_values" not in inputs:
        return kept
    (row,) = inputs["image_grid_thw"].tolist()
    pixels = inputs["pixel_values"][None]
    if row[1:] == [0, 0]:
        return kept | {"pixel_values_videos": pixels}
    return kept | {"pixel_values": pixels, "image_sizes": torch.tensor([row[1:]])}


def qwen(model, inputs, one_row):
    """Frames have names of their own there, and all tokens a kind."""
    ids, config = inputs["input_ids"], model.config
    is_image, is_video = ids == config.image_token_id, ids == config.video_token_id
    kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    kept["mm_token_type_ids"] = is_image.int() + 2 * is_video.int()
    pixels, grid = inputs.get("pixel_values"), inputs.get("image_grid_thw")
    if is_video.any():
        if one_row:
            grid = torch.tensor([[len(grid), *grid[0, 1:].tolist()]])
        return kept | {"pixel_values_videos": pixels, "video_grid_thw": grid}
    return kept | ({"pixel_values": pixels, "image_grid_thw": grid} if is_image.any() else {})


def qwen3_vl(model, inputs):
    """A video is one row of the grid, of as many frames as it has slots."""
    return qwen(model, inputs, one_row=True)


def qwen2_5_vl(model, inputs):
    """A video has text between its slots, which each must be a row then."""
    return qwen(model, inputs, one_row=False)


PLAIN_INPUTS = {
    "internvl": same,
    "llava": same,
    "llava_onevision": llava_onevision,
    "qwen3_vl": qwen3_vl,
    "qwen2_5_vl": qwen2_5_vl,
}
