"""Configuration of DisTime over InternVL."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import InternVLConfig

from distime.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD
from distime.model.config import TimeConfig


@strict
class DisTimeConfig(TimeConfig, InternVLConfig):
    """An `InternVLConfig` with the time parts of DisTime (paper, section 3): see `TimeConfig`."""

    # The first backbone of DisTime has the plain name, by which older folders call it.
    model_type = "distime"

    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    tie_word_embeddings: bool = False


def set_image_tokens(config: DisTimeConfig, image_size: int | None = None) -> None:
    """Write into a configuration how many tokens a frame or tile has.

    Args:
        config: changed in place.
        image_size: side in pixels of a frame; that of the vision tower by default. The vision tower
            interpolates its positions to any other.
    """
    vision = config.vision_config
    side = image_size or vision.image_size[0]
    config.image_seq_length = round(side / vision.patch_size[0] * config.downsample_ratio) ** 2
