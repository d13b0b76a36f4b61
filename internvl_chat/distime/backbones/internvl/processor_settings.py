"""What an InternVL's processor can be told, and how the files of a base model say it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from distime.backbones.base import CommonSettings, ProcessorError
from distime.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from distime.backbones.template import INTERNVL2_5_SYSTEM
from distime.model.weights import read_json

logger = logging.getLogger(__name__)

# Conversation templates that published configurations name; InternVL 3 and 3.5 kept 2.5's.
_SYSTEM_MESSAGES = {"internvl2_5": INTERNVL2_5_SYSTEM}


@dataclass(frozen=True, kw_only=True)
class ProcessorSettings(CommonSettings):
    """Everything that decides what an InternVL is shown.

    Attributes:
        image_size: side in pixels of the square that a frame or tile is resized to.
        patch_size: side in pixels of a patch of the vision tower.
        downsample_ratio: factor by which pixel shuffle shrinks the grid of patches.
        image_mean: of red, green and blue, on the scale 0 to 1.
        image_std: likewise.
        max_tiles: tiles that a still image may be cut into.
        use_thumbnail: add the whole image as one more tile when it was cut.
    """

    image_size: int = 448
    patch_size: int = 14
    downsample_ratio: float = 0.5
    image_mean: tuple[float, ...] = IMAGENET_MEAN
    image_std: tuple[float, ...] = IMAGENET_STD
    max_tiles: int = 6
    use_thumbnail: bool = True

    def __post_init__(self):
        super().__post_init__()
        step = self.patch_size / self.downsample_ratio
        if self.image_size % step:
            raise ProcessorError(
                f"image_size {self.image_size} is not a multiple of {step:g}, patch_size / "
                "downsample_ratio: choose one that is"
            )
        if self.max_tiles < 1:
            raise ProcessorError(f"max_tiles must be at least 1, got {self.max_tiles}")

    @property
    def frame_in_words(self) -> str:
        """A square."""
        side = self.image_size
        return f"{side} x {side} pixels and {self.tokens_per_image} tokens"

    @property
    def tokens_per_image(self) -> int:
        """`<IMG_CONTEXT>` tokens of one frame or tile."""
        return round(self.image_size / self.patch_size * self.downsample_ratio) ** 2


def settings_of_published(folder: Path, config: dict[str, Any]) -> ProcessorSettings:
    """Make the settings of a checkpoint in the published layout: its configuration has all.

    Raises:
        ProcessorError: it has not.
    """
    vision = _vision(folder, config)
    return ProcessorSettings(
        image_size=config.get("force_image_size") or vision["image_size"],
        patch_size=vision["patch_size"],
        downsample_ratio=config.get("downsample_ratio", 0.5),
        max_tiles=config.get("max_dynamic_patch", 6),
        use_thumbnail=config.get("use_thumbnail", True),
        system_message=_published_system_message(folder, config),
    )


def settings_of_library(folder: Path, config: dict[str, Any]) -> ProcessorSettings:
    """Make the settings of a base model that transformers wrote, with the files of its processor.

    Raises:
        ProcessorError: the files do not say what is needed.
    """
    vision = _vision(folder, config)
    # Since release 5 one file holds what several held before.
    whole = _json(folder / "processor_config.json")
    pictures = whole.get("image_processor") or _json(folder / "preprocessor_config.json")
    return ProcessorSettings(
        image_size=_side(folder, vision, "image_size", 448),
        patch_size=_side(folder, vision, "patch_size", 14),
        downsample_ratio=config.get("downsample_ratio", 0.5),
        image_mean=tuple(pictures.get("image_mean", IMAGENET_MEAN)),
        image_std=tuple(pictures.get("image_std", IMAGENET_STD)),
        max_tiles=pictures.get("max_patches", 12),
        system_message=_library_system_message(folder),
    )


def _vision(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        raise ProcessorError(
            f"{folder / 'config.json'}: no vision_config; is it an InternVL checkpoint?"
        )
    return vision


def _side(folder: Path, vision: dict[str, Any], key: str, default: int) -> int:
    """The side of a square, which transformers writes as one number or two."""
    side = vision.get(key, default)
    height, width = (side, side) if isinstance(side, int) else side
    if height != width:
        raise ProcessorError(
            f"{folder / 'config.json'}: {key} {height} x {width}; only squares are supported"
        )
    return height


def _published_system_message(folder: Path, config: dict[str, Any]) -> str:
    if isinstance(own := config.get("system_message"), str):
        return own
    name = config.get("template", "internvl2_5")
    if name not in _SYSTEM_MESSAGES:
        logger.warning(
            "%s: its conversation template %r is not known; prompts are written as for internvl2_5",
            folder / "config.json", name,
        )  # fmt: skip
    return _SYSTEM_MESSAGES.get(name, INTERNVL2_5_SYSTEM)


def _library_system_message(folder: Path) -> str | None:
    """What a folder's chat template writes as system turn where a conversation has none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        template = file.read_text(encoding="utf-8")
    else:
        files = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
        found = (_json(folder / name).get("chat_template") for name in files)
        template = next((one for one in found if isinstance(one, str)), "")
    if not template:
        return None
    question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    try:
        text = render_jinja_template([question], chat_template=template)[0][0]
    except Exception as error:  # a template may raise anything
        raise ProcessorError(f"{folder}: its chat template cannot be used: {error}") from error
    system = re.match(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", text, re.DOTALL)
    return system and system[1]


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
