"""Qwen3-VL and Qwen2.5-VL: frames keep their aspect ratio, and the tokens of a video have a budget.

A slot is two frames, which the vision tower merges; its time is the mean of theirs, and it is a
grid of its own (`positions`). `pictures` makes patches, `template` text, `model` runs it.
"""

from __future__ import annotations

from abc import abstractmethod
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
from distime.backbones.pixels import CLIP_MEAN, CLIP_STD
from distime.backbones.qwen_vl.model import (
    DisTimeQwen2_5VL,
    DisTimeQwen2_5VLConfig,
    DisTimeQwen3VL,
    DisTimeQwen3VLConfig,
)
from distime.backbones.qwen_vl.patches import fitting_size, frame_size, patches, within_budget
from distime.backbones.qwen_vl.positions import sequence_positions, sides_of
from distime.backbones.qwen_vl.template import IMAGE_PAD, VIDEO_PAD, QwenTemplate
from distime.backbones.template import Media
from distime.backbones.tiny_parts import qwen2_config, time_ids


@dataclass(frozen=True, kw_only=True)
class QwenVLSettings(CommonSettings):
    """Everything that decides what a Qwen-VL is shown.

    Attributes:
        system_message: Qwen3-VL has none of its own.
        patch_size: side in pixels of a patch of the vision tower.
        merge_size: patches on either side of what becomes one token.
        frames_per_slot: frames that the vision tower merges into one.
        image_mean: of red, green and blue, on the scale 0 to 1.
        image_std: likewise.
        image_min_pixels: least area of a still image; a smaller one is enlarged.
        image_max_pixels: greatest area of a still image.
        video_min_pixels: least area of all frames of a video together; of each, in Qwen2.5-VL.
        video_max_pixels: greatest area of all frames of a video together.
        max_frame_tokens: most tokens of one frame.
    """

    system_message: str | None = None
    patch_size: int = 16
    merge_size: int = 2
    frames_per_slot: int = 2
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_min_pixels: int = 65536
    image_max_pixels: int = 16777216
    video_min_pixels: int = 4096
    video_max_pixels: int = 25165824
    max_frame_tokens: int = 768

    def __post_init__(self):
        super().__post_init__()
        for kind in ("image", "video"):
            least, most = (getattr(self, f"{kind}_{end}_pixels") for end in ("min", "max"))
            if not 0 < least <= most:
                raise ProcessorError(
                    f"{kind}_min_pixels {least} and {kind}_max_pixels {most} must be 0 < min <= max"
                )
        if self.max_frame_tokens < 1:
            raise ProcessorError(f"max_frame_tokens must be at least 1: {self.max_frame_tokens}")

    @property
    def frame_in_words(self) -> str:
        """Of any size, within bounds."""
        side, budget = self.factor, self.video_max_pixels // self.factor**2
        return (
            f"at most {self.max_frame_tokens} tokens of {side} x {side} pixels; "
            f"{self.frames_per_slot} frames share their tokens, and all of a video have at most "
            f"{budget // self.frames_per_slot}"
        )

    @property
    def factor(self) -> int:
        """Side in pixels of what becomes one token."""
        return self.patch_size * self.merge_size


class QwenVL(Backbone):
    """What the generations of Qwen-VL share."""

    settings_class = QwenVLSettings
    template_class = QwenTemplate
    frames_have_sizes = True
    frames_per_slot = 2

    def read_settings(self, folder: Path, config: dict[str, Any]) -> QwenVLSettings:
        """From the configuration, and from the files of the library's processor where they are."""
        vision = config.get("vision_config", {})
        values = {
            name: vision[key]
            for name, key in (
                ("patch_size", "patch_size"),
                ("merge_size", "spatial_merge_size"),
                ("frames_per_slot", "temporal_patch_size"),
            )
            if key in vision
        }
        files = {kind: saved_processor(folder, kind) for kind in ("image", "video")}
        for kind, said in files.items():
            size = said.get("size") or {}
            for end, key in (("min", "shortest_edge"), ("max", "longest_edge")):
                pixels = size.get(key) or said.get(f"{end}_pixels")
                if pixels:
                    values[f"{kind}_{end}_pixels"] = pixels
        for key in ("image_mean", "image_std"):
            if key in files["image"]:
                values[key] = tuple(files["image"][key])
        return self.settings_class(**values)

    def misfits(
        self, settings: QwenVLSettings, placeholders: Sequence[int], config: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Both placeholders, and what makes tokens of pixels."""
        vision = config.vision_config
        pairs = {
            VIDEO_PAD: (placeholders[0], config.video_token_id),
            IMAGE_PAD: (placeholders[1], config.image_token_id),
            "patch size": (settings.patch_size, vision.patch_size),
            "merge size": (settings.merge_size, vision.spatial_merge_size),
            "frames of a slot": (settings.frames_per_slot, vision.temporal_patch_size),
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    # ------------------------------------------------------------------ pictures

    def video(
        self, frames: Pictures, settings: QwenVLSettings, raw: bool = False
    ) -> dict[str, Tensor]:
        """The patches of every slot; an odd last frame stands twice, as in the library."""
        frames = list(frames)
        first = frames[0]
        own = first.size if isinstance(first, Image.Image) else first.shape[1::-1]
        size = self._shown_size(own, len(frames), settings)
        step = settings.frames_per_slot
        frames += frames[-1:] * (-len(frames) % step)
        slots = [frames[start : start + step] for start in range(0, len(frames), step)]
        return self._tensors([(slot, size) for slot in slots], settings, raw)

    def images(
        self,
        pictures: Iterable[Image.Image],
        settings: QwenVLSettings,
        tiled: bool = True,
        raw: bool = False,
    ) -> dict[str, Tensor]:
        """The patches of every picture, which stands in all frames of its slot."""
        step = settings.frames_per_slot
        shown = [([one] * step, self._image_size(one.size, settings, tiled)) for one in pictures]
        return self._tensors(shown, settings, raw)

    def video_media(self, num_frames: int, size: Size | None, settings: QwenVLSettings) -> Media:
        """As many slots and tokens as `video` makes."""
        width, height = self._shown_size(size, num_frames, settings)
        tokens = width * height // settings.factor**2
        return Media(tokens, num_frames=-(-num_frames // settings.frames_per_slot))

    def image_media(
        self, sizes: Sequence[Size], settings: QwenVLSettings, tiled: bool = True
    ) -> Media:
        """Pictures have tokens of their own number, so that each counts in single ones."""
        shown = [self._image_size(size, settings, tiled) for size in sizes]
        tokens = tuple(width * height // settings.factor**2 for width, height in shown)
        return Media(1 if tokens else 0, image_tiles=tokens)

    def slot_times(self, times: Sequence[float]) -> list[float]:
        """The middle between the first and the last frame of every slot."""
        return slot_means(times, self.frames_per_slot)

    def positions(
        self,
        input_ids: Sequence[int],
        placeholders: Sequence[int],
        grid: Tensor | None,
        settings: QwenVLSettings,
    ) -> Tensor:
        """Three coordinates for every token."""
        ids = torch.tensor(list(input_ids), dtype=torch.long)
        is_visual = torch.isin(ids, torch.tensor(list(placeholders)))
        if not is_visual.any():
            grid = None
        return sequence_positions(is_visual, sides_of(grid, settings.merge_size))

    def frame_tokens(self, settings: QwenVLSettings) -> tuple[float, int]:
        """A slot, which several frames share, has a token at the least."""
        return 1 / settings.frames_per_slot, 0

    def _shown_size(self, size: Size, num_frames: int, settings: QwenVLSettings) -> Size:
        """As the library has it, or less, to keep to a budget of tokens."""
        slots = -(-num_frames // settings.frames_per_slot)
        shown = self._frame_size(size, num_frames, settings)
        return within_budget(shown, size, slots, settings.factor, settings.max_video_tokens)

    @abstractmethod
    def _frame_size(self, size: Size, num_frames: int, settings: QwenVLSettings) -> Size:
        """The size that the frames of a video are resized to."""

    def _image_size(self, size: Size, settings: QwenVLSettings, tiled: bool) -> Size:
        least, most = settings.image_min_pixels, settings.image_max_pixels
        if not tiled:  # no more than a frame may have
            most = max(least, min(most, settings.max_frame_tokens * settings.factor**2))
        return fitting_size(*size, settings.factor, least, most)

    def _tensors(
        self, slots: Sequence[tuple[Sequence, Size]], settings: QwenVLSettings, raw: bool
    ) -> dict[str, Tensor]:
        patch = settings.patch_size
        made = [
            patches(
                frames,
                size,
                patch_size=patch,
                merge_size=settings.merge_size,
                mean=settings.image_mean,
                std=settings.image_std,
                raw=raw,
            )
            for frames, size in slots
        ]
        dtype = torch.uint8 if raw else torch.float32
        nothing = torch.empty(0, 3 * settings.frames_per_slot * patch**2, dtype=dtype)
        grids = [[1, height // patch, width // patch] for _, (width, height) in slots]
        return {
            "pixel_values": torch.cat([nothing, *made]),
            "image_grid_thw": torch.tensor(grids, dtype=torch.long).view(-1, 3),
        }


def slot_means(times: Sequence[float], step: int) -> list[float]:
    """The middle between first and last of every `step` times, the last time repeated to fill."""
    padded = [*times, *([times[-1]] * (-len(times) % step))]
    return [(padded[i] + padded[i + step - 1]) / 2 for i in range(0, len(padded), step)]


class Qwen3VL(QwenVL):
    """Qwen3-VL: all frames of a video share a budget."""

    name = "qwen3_vl"
    model_class = DisTimeQwen3VL

    def _frame_size(self, size: Size, num_frames: int, settings: QwenVLSettings) -> Size:
        return frame_size(
            *size,
            num_frames,
            settings.factor,
            settings.frames_per_slot,
            settings.video_min_pixels,
            settings.video_max_pixels,
            settings.max_frame_tokens,
        )

    def tiny(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_frames: int,
    ) -> tuple[DisTimeQwen3VL, QwenVLSettings]:
        """A frame has at most the area of a square of `image_size`."""
        vision = {
            "depth": 3,
            "hidden_size": hidden_size // 2,
            "intermediate_size": 2 * hidden_size,
            "num_heads": 2,
            "patch_size": patch_size,
            "out_hidden_size": hidden_size,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": hidden_size**-0.5,
        }
        text = _tiny_text("qwen3_vl_text", tokenizer, hidden_size, num_layers)
        text["head_dim"] = hidden_size // 4
        config = DisTimeQwen3VLConfig(
            text_config=text, vision_config=vision, **_tiny_ids(tokenizer)
        )
        settings = _tiny_settings(QwenVLSettings, image_size, patch_size, num_frames)
        return DisTimeQwen3VL(config), settings


@dataclass(frozen=True, kw_only=True)
class Qwen2_5VLSettings(QwenVLSettings):
    """Everything that decides what a Qwen2.5-VL is shown: as in the vendor's `qwen-vl-utils`."""

    system_message: str | None = "You are a helpful assistant."
    patch_size: int = 14
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD
    image_min_pixels: int = 3136
    image_max_pixels: int = 12845056
    video_min_pixels: int = 100352
    video_max_pixels: int = 180633600


class Qwen2_5VL(QwenVL):
    """Qwen2.5-VL: every frame is at least of some size; times are written as in Qwen3-VL."""

    name = "qwen2_5_vl"
    model_class = DisTimeQwen2_5VL
    settings_class = Qwen2_5VLSettings

    def _frame_size(self, size: Size, num_frames: int, settings: QwenVLSettings) -> Size:
        share = min(
            settings.max_frame_tokens * settings.factor**2, settings.video_max_pixels // num_frames
        )
        most = max(share, int(settings.video_min_pixels * 1.05))
        return fitting_size(*size, settings.factor, settings.video_min_pixels, most)

    def tiny(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_frames: int,
    ) -> tuple[DisTimeQwen2_5VL, QwenVLSettings]:
        """A frame has at most about the area of a square of `image_size`."""
        vision = {
            "depth": 2,
            "hidden_size": hidden_size // 2,
            "intermediate_size": 2 * hidden_size,
            "num_heads": 2,
            "patch_size": patch_size,
            "out_hidden_size": hidden_size,
            "window_size": 4 * patch_size,  # two tokens
            "fullatt_block_indexes": [1],
            "initializer_range": hidden_size**-0.5,
        }
        text = _tiny_text("qwen2_5_vl_text", tokenizer, hidden_size, num_layers)
        config = DisTimeQwen2_5VLConfig(
            text_config=text, vision_config=vision, **_tiny_ids(tokenizer)
        )
        settings = _tiny_settings(Qwen2_5VLSettings, image_size, patch_size, num_frames)
        return DisTimeQwen2_5VL(config), settings


def _tiny_text(
    model_type: str, tokenizer: PreTrainedTokenizerBase, hidden_size: int, num_layers: int
) -> dict[str, Any]:
    text = qwen2_config(tokenizer, hidden_size, num_layers).to_dict()
    half = hidden_size // 4 // 2  # of a head's width: its angles
    sections = [half - 2 * (half // 3), half // 3, half // 3]
    text = {name: value for name, value in text.items() if name in _TEXT_FIELDS}
    text["rope_parameters"] |= {"mrope_section": sections}
    return text | {"model_type": model_type}


def _tiny_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return time_ids(tokenizer) | {
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_PAD),
        "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO_PAD),
        "tie_word_embeddings": True,
    }


def _tiny_settings(
    kind: type[QwenVLSettings], image_size: int, patch_size: int, num_frames: int
) -> QwenVLSettings:
    factor = 2 * patch_size
    return kind(
        system_message=None,
        patch_size=patch_size,
        num_frames=num_frames,
        image_min_pixels=factor**2,
        image_max_pixels=image_size**2,
        video_min_pixels=factor**2,
        max_frame_tokens=(image_size // factor) ** 2,
    )


_TEXT_FIELDS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "rope_parameters", "pad_token_id",
    "initializer_range", "tie_word_embeddings",
}  # fmt: skip
