"""DisTime over InternVL: vision tower, projector, and a Qwen2, Qwen3 or Llama language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from distime.backbones.internvl import published
from distime.backbones.internvl.config import DisTimeConfig, set_image_tokens
from distime.model.base_checkpoint import read_base
from distime.model.loading import DisTimeForConditionalGeneration, register
from distime.model.seam import Parts, blank_square
from distime.model.tokens import IMG_CONTEXT, SPECIAL_TOKENS
from distime.model.weights import Checkpoint, read_json

BASE_MODEL_TYPE = InternVLConfig.model_type
# Of releases before 4.52, and of every file on the hub: transformers renames when it writes, too.
_OLDER_NAMES = [
    (r"language_model\.lm_head\.", "lm_head."),
    (r"language_model\.model\.", "model.language_model."),
    (r"(vision_tower|multi_modal_projector)\.", r"model.\1."),
]


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
        pixel_values = self.normalised(pixel_values)
        return self.get_image_features(pixel_values=pixel_values).pooler_output.flatten(0, 1)

    def blank_images(self) -> dict[str, Tensor]:
        """One black tile."""
        return {"pixel_values": blank_square(self.config.vision_config, next(self.parameters()))}

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """Whether it is the published layout of InternVL, or that of transformers (`-HF`)."""
        return published.is_published(config) or config.get("model_type") == BASE_MODEL_TYPE

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any]) -> Checkpoint:
        """Read a base InternVL in either layout, a published DisTime, or one wrapped in LoRA."""
        if published.is_published(read_json(path / "config.json")):
            return published.read(path, overrides)
        checkpoint = read_base(
            path,
            DisTimeConfig,
            placeholders={"image_token_id": IMG_CONTEXT},
            added_tokens=SPECIAL_TOKENS,
            overrides=overrides,
            renaming=_OLDER_NAMES,
        )
        set_image_tokens(checkpoint.config)
        return checkpoint

    def write_published(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        max_shard_size: int | str = "5GB",
    ) -> None:
        """Write tokenizer, config and weights as DisTime was published."""
        published.write(self, folder, max_shard_size)
        published.write_tokenizer(tokenizer, folder)
