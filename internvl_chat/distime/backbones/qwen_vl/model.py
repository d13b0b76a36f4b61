"""DisTime over Qwen-VL: M-RoPE positions, and in Qwen3-VL DeepStack features beside embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPast

from distime.backbones.pixels import CLIP_MEAN, CLIP_STD
from distime.backbones.qwen_vl.positions import batch_positions, sides_of
from distime.backbones.qwen_vl.template import ADDED_TOKENS, IMAGE_PAD, VIDEO_PAD
from distime.model.base_checkpoint import read_base
from distime.model.config import TimeConfig
from distime.model.loading import DisTimeForConditionalGeneration, register
from distime.model.seam import Parts
from distime.model.weights import Checkpoint

# Until release 4.52 of transformers the language model was not named apart.
OLD_NAMES = [
    (r"visual\.", "model.visual."),
    (r"model\.(?!visual\.|language_model\.)", "model.language_model."),
]


class QwenVLParts:
    """What the generations of Qwen-VL share; mixed into the class of each."""

    placeholder = f"{VIDEO_PAD} or {IMAGE_PAD}"
    position_rows = 3

    def blank_images(self) -> dict[str, Tensor]:
        """One picture of one token."""
        vision = self.config.vision_config
        merge, patch = vision.spatial_merge_size, vision.patch_size
        width = vision.in_channels * vision.temporal_patch_size * patch**2
        like = next(self.parameters())
        return {
            "pixel_values": like.new_zeros(merge**2, width),
            "image_grid_thw": torch.tensor([[1, merge, merge]], device=like.device),
        }

    def is_placeholder(self, input_ids: Tensor) -> Tensor:
        """Frames and pictures have a token each."""
        config = self.config
        return (input_ids == config.video_token_id) | (input_ids == config.image_token_id)

    def prompt_positions(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor:
        """Three coordinates `(3, B, T)` for every token."""
        if input_ids is None:
            raise ValueError("inputs_embeds need position_ids (3, B, T): they do not name pictures")
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError("behind a cache give position_ids: they depend on its pictures")
        is_visual = self.is_placeholder(input_ids)
        if image_grid_thw is None and is_visual.any():
            raise ValueError(
                "image_grid_thw or position_ids must be given: positions depend on the pictures' "
                "sizes"
            )
        sides = sides_of(image_grid_thw, self.config.vision_config.spatial_merge_size)
        return batch_positions(is_visual, attention_mask, sides)

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """Whether it is the base model as transformers writes it."""
        return config.get("model_type") == cls.base_model_type

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any]) -> Checkpoint:
        """Read a base model."""
        return read_base(
            path,
            cls.config_class,
            placeholders={"image_token_id": IMAGE_PAD, "video_token_id": VIDEO_PAD},
            added_tokens=ADDED_TOKENS,
            overrides=overrides,
            renaming=OLD_NAMES,
        )


@strict
class DisTimeQwen3VLConfig(TimeConfig, Qwen3VLConfig):
    """A `Qwen3VLConfig` with the time parts of DisTime: see `TimeConfig`."""

    model_type = "distime_qwen3_vl"

    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)


@register
class DisTimeQwen3VL(QwenVLParts, DisTimeForConditionalGeneration, Qwen3VLForConditionalGeneration):
    """DeepStack: the language model adds further features of a picture after its first layers."""

    base_model_type = "qwen3_vl"
    config_class = DisTimeQwen3VLConfig
    config: DisTimeQwen3VLConfig
    parts = Parts(
        vision=("model.visual.patch_embed", "model.visual.pos_embed", "model.visual.blocks"),
        projector=("model.visual.merger", "model.visual.deepstack_merger_list"),
        vision_module="model.visual",
    )

    @property
    def feature_width(self) -> int:
        """A row has the embedding, then what is added after each of the first layers."""
        layers = len(self.config.vision_config.deepstack_visual_indexes)
        return (1 + layers) * self.config.text_config.hidden_size

    def encode_images(self, pixel_values: Tensor, image_grid_thw: Tensor | None = None) -> Tensor:
        """Patches `(P, D)` and grids `(G, 3)` -> features `(N, (1 + layers) C)`."""
        visual, pixel_values = self.model.visual, self.normalised(pixel_values)
        out = visual(pixel_values.type(visual.dtype), grid_thw=image_grid_thw, return_dict=True)
        return torch.cat([out.pooler_output, *out.deepstack_features], dim=-1)

    def run_language_model(
        self,
        inputs_embeds: Tensor,
        is_placeholder: Tensor | None,
        features: Tensor | None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hand on what is to be added at the places of pictures."""
        added = {}
        if features is not None:
            width = inputs_embeds.shape[-1]
            added = {
                "visual_pos_masks": is_placeholder,
                "deepstack_visual_embeds": list(features[:, width:].split(width, dim=-1)),
            }
        return super().run_language_model(
            inputs_embeds, is_placeholder, features, **added, **kwargs
        )


@strict
class DisTimeQwen2_5VLConfig(TimeConfig, Qwen2_5_VLConfig):
    """A `Qwen2_5_VLConfig` with the time parts of DisTime: see `TimeConfig`."""

    model_type = "distime_qwen2_5_vl"

    image_mean: list[float] | tuple[float, ...] = CLIP_MEAN
    image_std: list[float] | tuple[float, ...] = CLIP_STD


@register
class DisTimeQwen2_5VL(
    QwenVLParts, DisTimeForConditionalGeneration, Qwen2_5_VLForConditionalGeneration
):
    """The library's positions of whole videos are not used: see `positions`."""

    base_model_type = "qwen2_5_vl"
    config_class = DisTimeQwen2_5VLConfig
    config: DisTimeQwen2_5VLConfig
    parts = Parts(
        vision=("model.visual.patch_embed", "model.visual.blocks"),
        projector=("model.visual.merger",),
        vision_module="model.visual",
    )

    def encode_images(self, pixel_values: Tensor, image_grid_thw: Tensor | None = None) -> Tensor:
        """Patches `(P, D)` and grids `(G, 3)` -> features `(N, C)`."""
        visual, pixel_values = self.model.visual, self.normalised(pixel_values)
        out = visual(pixel_values.type(visual.dtype), grid_thw=image_grid_thw, return_dict=True)
        return out.pooler_output
