"""LLaVA-OneVision: the paper's second backbone, in the `-hf` layout of transformers.

A frame is a square of 384 pixels, which SigLIP sees as 27 x 27 patches; they are pooled to 14 x 14
tokens. Behind the last frame of a video stands one `image_newline`. A picture by itself is shown
whole and, beside that, cut into squares on a grid of about its own shape ("anyres"); of several
pictures each is one square. All of that is as in transformers.

How the paper fed its LLaVA-OneVision is not published: 16 frames of 384 pixels and 196 tokens, a
time token before each with nothing between, and the newline kept are choices of this repository.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distime.backbones.base import (
    Backbone,
    CommonSettings,
    Pictures,
    ProcessorError,
    Size,
    saved_processor,
)
from distime.backbones.llava_onevision.anyres import cut, grids_of, num_tokens, on_a_square
from distime.backbones.llava_onevision.model import (
    DisTimeLlavaOnevision,
    DisTimeLlavaOnevisionConfig,
)
from distime.backbones.llava_onevision.template import IMAGE, VIDEO, LlavaOnevisionTemplate
from distime.backbones.pixels import frames_to_pixels, to_image
from distime.backbones.template import Media
from distime.backbones.tiny_parts import qwen2_config, time_ids


@dataclass(frozen=True, kw_only=True)
class LlavaOnevisionSettings(CommonSettings):
    """Everything that decides what a LLaVA-OneVision is shown.

    Attributes:
        system_message: none, as in transformers' chat template.
        image_size: side in pixels of the square that a frame or part of a picture is.
        patch_size: side in pixels of a patch of the vision tower.
        image_mean: of red, green and blue, on the scale 0 to 1.
        image_std: likewise.
        image_grid_pinpoints: height and width in pixels of the grids onto which a picture may be
            put to be cut into squares.
        max_squares: the tokens of a picture's grid are shrunk to about those of so many squares.
    """

    system_message: str | None = None
    image_size: int = 384
    patch_size: int = 14
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_grid_pinpoints: tuple[Size, ...] = grids_of(384, 6)
    max_squares: int = 9

    def __post_init__(self):
        super().__post_init__()
        # Files of JSON have lists.
        grids = tuple((height, width) for height, width in self.image_grid_pinpoints)
        object.__setattr__(self, "image_grid_pinpoints", grids)
        if not 0 < self.patch_size <= self.image_size:
            raise ProcessorError(
                f"patch_size {self.patch_size} must be above 0 and at most image_size "
                f"{self.image_size}"
            )
        if not grids or any(side < 1 or side % self.image_size for side in sum(grids, ())):
            raise ProcessorError(
                f"image_grid_pinpoints must be multiples of image_size {self.image_size}: {grids}"
            )

    @property
    def frame_in_words(self) -> str:
        """A square."""
        side = self.image_size
        return f"{side} x {side} pixels and {self.tokens_per_frame} tokens"

    @property
    def patches(self) -> int:
        """Patches on either side of a square; pixels left over at its edge are not seen."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of a frame, whose patches are pooled two by two."""
        return math.ceil(self.patches / 2) ** 2

    def tokens_of_picture(self, size: Size, tiled: bool) -> int:
        """Tokens of a still picture, newlines and all."""
        if not tiled:
            return self.patches**2 + 1
        side, grids = self.image_size, self.image_grid_pinpoints
        return num_tokens(size, side, self.patches, grids, self.max_squares)


class LlavaOnevision(Backbone):
    """Frames are squares of one size; still pictures are squares, or grids of them."""

    name = "llava_onevision"
    model_class = DisTimeLlavaOnevision
    settings_class = LlavaOnevisionSettings
    template_class = LlavaOnevisionTemplate

    def read_settings(self, folder: Path, config: dict[str, Any]) -> LlavaOnevisionSettings:
        """From the configuration; the statistics are those of the library's image processor."""
        values = {
            name: config["vision_config"][name]
            for name in ("image_size", "patch_size")
            if name in config.get("vision_config", {})
        }
        if config.get("image_grid_pinpoints"):
            values["image_grid_pinpoints"] = config["image_grid_pinpoints"]
        if config.get("vision_aspect_ratio"):
            values["max_squares"] = _max_squares(config["vision_aspect_ratio"])
        said = saved_processor(folder, "image")
        values |= {k: tuple(said[k]) for k in ("image_mean", "image_std") if k in said}
        return LlavaOnevisionSettings(**values)

    def misfits(
        self,
        settings: LlavaOnevisionSettings,
        placeholders: Sequence[int],
        config: DisTimeLlavaOnevisionConfig,
    ) -> dict[str, tuple[Any, Any]]:
        """Both placeholders, and what makes tokens of pixels."""
        vision = config.vision_config
        grids = tuple(map(tuple, config.image_grid_pinpoints))
        pairs = {
            VIDEO: (placeholders[0], config.video_token_id),
            IMAGE: (placeholders[1], config.image_token_id),
            "image size": (settings.image_size, vision.image_size),
            "patch size": (settings.patch_size, vision.patch_size),
            "image_grid_pinpoints": (settings.image_grid_pinpoints, grids),
            "max_squares": (settings.max_squares, _max_squares(config.vision_aspect_ratio)),
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def video(
        self, frames: Pictures, settings: LlavaOnevisionSettings, raw: bool = False
    ) -> dict[str, Tensor]:
        """A square for every frame, whatever its shape."""
        return _tensors(list(frames), [[len(frames), 0, 0]], settings, raw)

    def images(
        self,
        pictures: Iterable[Image.Image],
        settings: LlavaOnevisionSettings,
        tiled: bool = True,
        raw: bool = False,
    ) -> dict[str, Tensor]:
        """The squares of all pictures."""
        pictures = list(map(to_image, pictures))
        if tiled and len(pictures) == 1:
            shown = [cut(pictures[0], settings.image_size, settings.image_grid_pinpoints)]
        else:
            shown = [[on_a_square(one, settings.image_mean)] for one in pictures]
        rows = [[len(some), *one.size[::-1]] for some, one in zip(shown, pictures, strict=True)]
        return _tensors([square for some in shown for square in some], rows, settings, raw)

    def video_media(
        self, num_frames: int, size: Size | None, settings: LlavaOnevisionSettings
    ) -> Media:
        """A slot is a frame; the newline stands behind the last."""
        return Media(settings.tokens_per_frame, num_frames=num_frames, num_extra=1)

    def image_media(
        self, sizes: Sequence[Size], settings: LlavaOnevisionSettings, tiled: bool = True
    ) -> Media:
        """Pictures have tokens of their own number, so that each counts in single ones."""
        tiled = tiled and len(sizes) == 1
        tokens = tuple(settings.tokens_of_picture(size, tiled) for size in sizes)
        return Media(1 if tokens else 0, image_tiles=tokens)

    def tiny(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_frames: int,
    ) -> tuple[DisTimeLlavaOnevision, LlavaOnevisionSettings]:
        """The vision tower has half the language model's width."""
        settings = LlavaOnevisionSettings(
            image_size=image_size,
            patch_size=patch_size,
            num_frames=num_frames,
            image_grid_pinpoints=grids_of(image_size, 2),
            max_squares=2,
        )
        vision = {
            "model_type": "siglip_vision_model",
            "hidden_size": hidden_size // 2,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": image_size,
            "patch_size": patch_size,
            "vision_use_head": False,
        }
        config = DisTimeLlavaOnevisionConfig(
            text_config=qwen2_config(tokenizer, hidden_size, num_layers).to_dict(),
            vision_config=vision,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            video_token_id=tokenizer.convert_tokens_to_ids(VIDEO),
            image_grid_pinpoints=[list(grid) for grid in settings.image_grid_pinpoints],
            vision_aspect_ratio=f"{_ANYRES}{settings.max_squares}",
            tie_word_embeddings=True,
            **time_ids(tokenizer),
        )
        return DisTimeLlavaOnevision(config), settings


_ANYRES = "anyres_max_"


def _max_squares(vision_aspect_ratio: str) -> int:
    number = vision_aspect_ratio.removeprefix(_ANYRES)
    if number == vision_aspect_ratio or not number.isdigit():
        raise ProcessorError(
            f"vision_aspect_ratio {vision_aspect_ratio!r}: only {_ANYRES}N is known, N a number"
        )
    return int(number)


def _tensors(
    squares: Sequence, rows: Sequence[Sequence[int]], settings: LlavaOnevisionSettings, raw: bool
) -> dict[str, Tensor]:
    size, mean, std = settings.image_size, settings.image_mean, settings.image_std
    return {
        "pixel_values": frames_to_pixels(squares, size, mean, std, raw),
        "image_grid_thw": torch.tensor(rows, dtype=torch.long).view(-1, 3),
    }
