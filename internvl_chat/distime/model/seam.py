"""What the class of a backbone says to time: the half of the seam that runs the model.

Time is the rest of this package. It asks for no more than stands here and knows no backbone by
name; a backbone (`distime.backbones`) knows no time. The other half, how words and pictures become
tensors, is `distime.backbones.base.Backbone`.

*Features* are what the vision side gives for the placeholder tokens of a batch, in one flat list
`(N, W)`: one row for every placeholder in the order of the tokens, whatever it is a part of. The
first C numbers of a row (the language model's width) are the token's embedding. What follows is the
backbone's business, such as DeepStack's additions to later layers. Being flat, features are cut,
joined, kept on disk and repeated alike for every backbone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPast

from distime.model.raw_pixels import normalise
from distime.model.weights import Checkpoint, CheckpointError


@dataclass(frozen=True)
class Parts:
    """Where a backbone's modules lie: beginnings of parameter names.

    Attributes:
        vision: the vision tower; frozen together.
        projector: what leads from it to the language model; frozen together.
        language_model: without the output head.
        embedding: input embeddings.
        head: output head.
        vision_module: the module that holds the layers of the vision tower; recomputed in the
            backward pass where that is asked for.
        lora_targets: regular expression of the linear layers that LoRA adapts.
        unused: what no forward pass reads, such as the pooling of a tower whose patches are read;
            it is never trained, since it would have no gradient.
    """

    vision: tuple[str, ...]
    projector: tuple[str, ...]
    vision_module: str
    language_model: str = "model.language_model"
    embedding: str = "model.language_model.embed_tokens"
    head: str = "lm_head"
    lora_targets: str = (
        r"model\.language_model\.layers\.\d+\."
        r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    )
    unused: tuple[str, ...] = ()


class Seam:
    """Mixed into every backbone's class; what has no default here the backbone must define.

    Attributes:
        parts: see `Parts`.
        placeholder: name of the tokens whose embeddings are replaced by features, for messages.
        limits: what cannot be had in training, a flag's name (or "zero3") -> the reason, to be read
            behind the backbone's name. Such flags are refused before anything is loaded.
        position_rows: 1 where a token has one position, else the number of its coordinates.
    """

    parts: ClassVar[Parts]
    placeholder: ClassVar[str]
    limits: ClassVar[dict[str, str]] = {}
    position_rows: ClassVar[int] = 1

    # ------------------------------------------------------------------ pictures

    def encode_images(self, pixel_values: Tensor, image_grid_thw: Tensor | None = None) -> Tensor:
        """Run the vision side.

        Args:
            pixel_values: all pictures of a batch in token order, in the backbone's own shape; of
                uint8, they are to be `normalised`.
            image_grid_thw: `(G, 3)`, what the backbone's processor says of each slot or picture
                beside its pixels (frames, height and width in patches), where it says anything.

        Returns:
            features `(N, W)`, see above.
        """
        raise NotImplementedError

    def normalised(self, pixel_values: Tensor) -> Tensor:
        """Pixels as the vision side takes them: uint8 ones normalised, others as they are.

        Raises:
            ValueError: the configuration does not say how.
        """
        if pixel_values.dtype != torch.uint8:
            return pixel_values
        if self.config.image_mean is None or self.config.image_std is None:
            raise ValueError(
                "pixel_values are uint8, and the model's configuration has no image_mean and "
                "image_std to normalise them with: call processor.check_model(model.config)"
            )
        return normalise(pixel_values, self.config.image_mean, self.config.image_std)

    @property
    def feature_width(self) -> int:
        """W of features."""
        return self.config.get_text_config().hidden_size

    def blank_images(self) -> dict[str, Tensor]:
        """The smallest valid arguments of `encode_images`.

        A training batch without pictures runs the vision side over them and drops the outcome, so
        that every parameter has a gradient on every rank. Type and device are to be those of
        `next(self.parameters())`: a weight that is read by its name in a forward pass would be
        gathered under ZeRO-3, on this rank alone, while the others wait for another.
        """
        raise NotImplementedError

    def is_placeholder(self, input_ids: Tensor) -> Tensor:
        """Where `(B, T)` ids are tokens that features belong to."""
        return input_ids == self.config.image_token_id

    # ------------------------------------------------------------------ language

    def prompt_positions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
    ) -> Tensor | None:
        """Positions of whole sequences, padded on either side and not packed.

        Args:
            input_ids: `(B, T)`.
            attention_mask: `(B, T)`, 0 at padding.
            image_grid_thw: see `encode_images`.

        Returns:
            `(B, T)`, or `(position_rows, B, T)`; None where the language model counts itself.

        Raises:
            ValueError: what they depend on is not given.
        """
        if attention_mask is None or attention_mask.ndim != 2:
            return None
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    def run_language_model(
        self,
        inputs_embeds: Tensor,
        is_placeholder: Tensor | None,
        features: Tensor | None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the language model over embeddings whose replaced rows are in place.

        Args:
            inputs_embeds: `(B, T, C)`.
            is_placeholder: `(B, T)`, where the features are; None without features.
            features: `(N, W)`, of which the first C columns are in `inputs_embeds` already.
            **kwargs: attention mask, positions, cache and the like.
        """
        return self.model.language_model(inputs_embeds=inputs_embeds, **kwargs)

    # ------------------------------------------------------------------ checkpoints of others

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """Whether a config.json describes a checkpoint of others that `read` turns into ours."""
        return False

    @classmethod
    def read(cls, path: Path, overrides: dict[str, Any]) -> Checkpoint:
        """Read such a checkpoint.

        Args:
            path: folder.
            overrides: fields of our configuration to set.

        Raises:
            CheckpointError: with the names of what is missing, unexpected or wrongly shaped.
        """
        raise NotImplementedError

    def write_published(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        max_shard_size: int | str = "5GB",
    ) -> None:
        """Write the model in the layout in which DisTime on this backbone was published.

        Args:
            folder: where the processor has been saved.
            tokenizer: of the processor; what it wrote is replaced.
            max_shard_size: bytes of a weight file, above which there are several and an index.

        Raises:
            CheckpointError: it never was.
        """
        raise CheckpointError(
            f"{type(self).__name__}: DisTime was not published on this backbone, so there is no "
            "such layout; keep ours"
        )


def next_position(position_ids: Tensor) -> int:
    """The position of what follows a sequence whose positions `(1, P)` or `(D, 1, P)` are."""
    return int(position_ids.max()) + 1 if position_ids.numel() else 0


def blank_square(vision_config: Any, like: Tensor) -> Tensor:
    """One black picture `(1, 3, H, W)` for a vision tower of one size."""
    size = vision_config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros(1, 3, height, width, dtype=like.dtype, device=like.device)
