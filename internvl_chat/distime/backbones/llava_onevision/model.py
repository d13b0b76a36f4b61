"""DisTime over LLaVA-OneVision: SigLIP, a projector, and a Qwen2 language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from distime.backbones.llava_onevision.template import ADDED_TOKENS, IMAGE, VIDEO
from distime.model.base_checkpoint import read_base
from distime.model.config import TimeConfig
from distime.model.loading import DisTimeForConditionalGeneration, register
from distime.model.seam import Parts, blank_square
from distime.model.weights import Checkpoint

# On the hub, as older releases of transformers have them, the parts lie beside the language model
# with its head, and the vision tower has a level more.
OLDER_NAMES = (
    (r"language_model\.lm_head\.", "lm_head."),
    (r"language_model\.model\.", "model.language_model."),
    (r"(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"multi_modal_projector\.", "model.multi_modal_projector."),
    (r"image_newline$", "model.image_newline"),
)


@strict
class DisTimeLlavaOnevisionConfig(TimeConfig, LlavaOnevisionConfig):
    """A `LlavaOnevisionConfig` with the time parts of DisTime: see `TimeConfig`."""

    model_type = "distime_llava_onevision"

    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    tie_word_embeddings: bool = False


@register
class DisTimeLlavaOnevision(
    DisTimeForConditionalGeneration, LlavaOnevisionForConditionalGeneration
):
    """SigLIP's squares become tokens in two ways: pooled for frames, whole for still pictures."""

    config_class = DisTimeLlavaOnevisionConfig
    config: DisTimeLlavaOnevisionConfig
    placeholder = f"{VIDEO} or {IMAGE}"
    limits = {"zero3": "does not train in stage 3 of ZeRO: choose zero_stage2_config.json"}
    parts = Parts(
        vision=("model.vision_tower",),
        projector=("model.multi_modal_projector", "model.image_newline"),
        vision_module="model.vision_tower",
        unused=("model.vision_tower.post_layernorm",),  # its layers are read before it
    )

    def encode_images(self, pixel_values: Tensor, image_grid_thw: Tensor | None = None) -> Tensor:
        """Squares `(F, 3, S, S)` -> features `(N, C)`.

        Args:
            pixel_values: of all videos and pictures.
            image_grid_thw: `(G, 3)`, a row for each of them: its squares, and a picture's height
                and width in pixels, which are 0 for a video.

        Raises:
            ValueError: the rows are not of these squares.
        """
        rows = [] if image_grid_thw is None else image_grid_thw.tolist()
        counts = [count for count, _, _ in rows]
        if sum(counts) != len(pixel_values):
            raise ValueError(
                f"image_grid_thw has {sum(counts)} squares, but pixel_values {len(pixel_values)}"
            )
        # All at once: ranks whose batches differ then run the vision tower equally often.
        squares = self._project(pixel_values).split(counts)
        return torch.cat(
            [
                self._picture(some, (height, width)) if height else self._video(some)
                for some, (_, height, width) in zip(squares, rows, strict=True)
            ]
        )

    def _project(self, pixel_values: Tensor) -> Tensor:
        config, tower = self.config, self.model.vision_tower
        layers = config.vision_feature_layer
        pixel_values = self.normalised(pixel_values).to(tower.dtype)
        out = tower(pixel_values, output_hidden_states=layers, return_dict=True)
        chosen = [layers] if isinstance(layers, int) else layers
        states = torch.cat([out.hidden_states[layer] for layer in chosen], dim=-1)
        if config.vision_feature_select_strategy == "default":
            states = states[:, 1:]
        return self.model.multi_modal_projector(states)

    def _video(self, squares: Tensor) -> Tensor:
        pooled = self.model.apply_pooling(squares).flatten(0, 1)
        return torch.cat([pooled, self.model.image_newline[None].to(pooled)])

    def _picture(self, squares: Tensor, size: tuple[int, int]) -> Tensor:
        newline, ratio = self.model.image_newline, self.config.vision_aspect_ratio
        return self.model.pack_image_features([squares], [size], newline, ratio)[0][0]

    def blank_images(self) -> dict[str, Tensor]:
        """A video of one black frame."""
        like = self.lm_head.weight
        return {
            "pixel_values": blank_square(self.config.vision_config, like),
            "image_grid_thw": torch.tensor([[1, 0, 0]], device=like.device),
        }

    def is_placeholder(self, input_ids: Tensor) -> Tensor:
        """Frames and pictures have a token each."""
        config = self.config
        return (input_ids == config.video_token_id) | (input_ids == config.image_token_id)

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """Whether it is the base model as transformers writes it."""
        return config.get("model_type") == LlavaOnevisionConfig.model_type

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any]) -> Checkpoint:
        """Read a base model, whichever release of transformers wrote it."""
        return read_base(
            path,
            cls.config_class,
            placeholders={"image_token_id": IMAGE, "video_token_id": VIDEO},
            added_tokens=ADDED_TOKENS,
            overrides=overrides,
            renaming=OLDER_NAMES,
        )
