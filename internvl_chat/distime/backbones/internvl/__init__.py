"""InternVL 2.5, 3 and 3.5: the backbone that DisTime was published on.

`model` runs it, `config` is its configuration, `published` its published layout,
`processor_settings` what its processor can be told; what is here makes its tensors and text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distime.backbones.base import Backbone, Pictures, Size
from distime.backbones.internvl.config import DisTimeConfig, set_image_tokens
from distime.backbones.internvl.model import BASE_MODEL_TYPE, DisTimeInternVL
from distime.backbones.internvl.processor_settings import (
    ProcessorSettings,
    settings_of_library,
    settings_of_published,
)
from distime.backbones.pixels import frames_to_pixels, tile_grid, tile_image
from distime.backbones.template import Media
from distime.backbones.tiny_parts import qwen2_config, time_ids
from distime.model.tokens import IMG_CONTEXT


class InternVL(Backbone):
    """Frames and tiles are squares of one size, with ImageNet's statistics."""

    name = "internvl"
    model_class = DisTimeInternVL
    settings_class = ProcessorSettings
    adjustable = (*Backbone.adjustable, "image_size")

    def reads(self, config: dict[str, Any]) -> bool:
        """Also a configuration that names no model: the first folders of DisTime had such."""
        return super().reads(config) or "model_type" not in config

    def read_settings(self, folder: Path, config: dict[str, Any]) -> ProcessorSettings:
        """From the configuration, and the files of transformers' processor where it wrote it."""
        if config.get("model_type") == BASE_MODEL_TYPE:
            return settings_of_library(folder, config)
        return settings_of_published(folder, config)

    def misfits(
        self, settings: ProcessorSettings, placeholders: Sequence[int], config: DisTimeConfig
    ) -> dict[str, tuple[Any, Any]]:
        """Also the tokens of a frame."""
        found = super().misfits(settings, placeholders, config)
        ours, theirs = settings.tokens_per_image, config.image_seq_length
        return found if ours == theirs else found | {"tokens per image": (ours, theirs)}

    def fit(self, settings: ProcessorSettings, config: DisTimeConfig) -> None:
        """A frame of another size has other tokens; the vision tower interpolates positions."""
        set_image_tokens(config, settings.image_size)

    def video(
        self, frames: Pictures, settings: ProcessorSettings, raw: bool = False
    ) -> dict[str, Tensor]:
        """`pixel_values` `(F, 3, S, S)`."""
        size, mean, std = settings.image_size, settings.image_mean, settings.image_std
        return {"pixel_values": frames_to_pixels(frames, size, mean, std, raw)}

    def images(
        self,
        pictures: Iterable[Image.Image],
        settings: ProcessorSettings,
        tiled: bool = True,
        raw: bool = False,
    ) -> dict[str, Tensor]:
        """`pixel_values` of all tiles of all pictures."""
        limit = settings.max_tiles if tiled else 1
        size, thumbnail = settings.image_size, settings.use_thumbnail
        tiles = [
            tile
            for picture in pictures
            for tile in tile_image(picture, size, max_num=limit, use_thumbnail=thumbnail)
        ]
        return self.video(tiles, settings, raw)

    def video_media(self, num_frames: int, size: Size | None, settings: ProcessorSettings) -> Media:
        """A slot is a frame."""
        return Media(settings.tokens_per_image, num_frames=num_frames)

    def image_media(
        self, sizes: Sequence[Size], settings: ProcessorSettings, tiled: bool = True
    ) -> Media:
        """As many tiles as `images` makes."""
        tiles = []
        for size in sizes:
            limit = settings.max_tiles if tiled else 1
            columns, rows = tile_grid(*size, settings.image_size, max_num=limit)
            count = columns * rows
            tiles.append(count + (settings.use_thumbnail and count > 1))
        return Media(settings.tokens_per_image if tiles else 0, image_tiles=tuple(tiles))

    def tiny(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_frames: int,
    ) -> tuple[DisTimeInternVL, ProcessorSettings]:
        """One token for 2 x 2 patches; the vision tower has half the language model's width."""
        settings = ProcessorSettings(
            image_size=image_size,
            patch_size=patch_size,
            num_frames=num_frames,
            system_message=None,
            max_tiles=1,
        )
        vision = {
            "model_type": "internvl_vision",
            "hidden_size": hidden_size // 2,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": image_size,
            "patch_size": patch_size,
            "attention_bias": True,
            # The defaults (0.02 and layers scaled by 0.1) suit wide pretrained towers; at this
            # width they start so close to zero that hundreds of steps pass before anything is seen.
            "initializer_range": hidden_size**-0.5,
            "layer_scale_init_value": 1.0,
        }
        config = DisTimeConfig(
            text_config=qwen2_config(tokenizer, hidden_size, num_layers).to_dict(),
            vision_config=vision,
            image_token_id=tokenizer.convert_tokens_to_ids(IMG_CONTEXT),
            image_seq_length=settings.tokens_per_image,
            tie_word_embeddings=True,
            **time_ids(tokenizer),
        )
        model = DisTimeInternVL(config)
        with torch.no_grad():
            # Positions start at zero in InternVL, where pretraining fills them.
            model.model.vision_tower.embeddings.position_embeddings.normal_(0, 0.02)
        return model, settings
