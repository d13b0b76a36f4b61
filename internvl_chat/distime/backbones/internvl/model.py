"""DisTime over InternVL: vision tower, projector, and a Qwen2, Qwen3 or Llama language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import InternVLForConditionalGeneration

from distime.backbones.internvl import published
from distime.backbones.internvl.config import DisTimeConfig
from distime.model.modeling import DisTimeForConditionalGeneration, register
from distime.model.seam import Parts, blank_square
from distime.model.tokens import IMG_CONTEXT
from distime.model.weights import Checkpoint


@register
class DisTimeInternVL(DisTimeForConditionalGeneration, InternVLForConditionalGeneration):
    """A frame or tile is one square and always as many tokens; positions are one-dimensional."""

    config_class = DisTimeConfig
    config: DisTimeConfig
    placeholder = IMG_CONTEXT
    parts = Parts(
        vision=("model.vision_tower",),
        projector=("model.multi_modal_projector",),
        vision_module="model.vision_tower",
    )

    def encode_images(self, pixel_values: Tensor, image_grid_thw: Tensor | None = None) -> Tensor:
        """Tiles `(F, 3, S, S)` -> features `(N, C)`."""
        return self.get_image_features(pixel_values=pixel_values).pooler_output.flatten(0, 1)

    def blank_images(self) -> dict[str, Tensor]:
        """One black tile."""
        return {"pixel_values": blank_square(self.config.vision_config, next(self.parameters()))}

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """Whether it is the published layout of InternVL."""
        return published.is_published(config)

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any]) -> Checkpoint:
        """Read a base InternVL, a published DisTime, or one still wrapped in LoRA."""
        return published.read(path, overrides)

    def write_published(self, folder: Path, max_shard_size: int | str = "5GB") -> None:
        """Write config and weights as DisTime was published."""
        published.write(self, folder, max_shard_size)
