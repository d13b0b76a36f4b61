"""What a backbone says of words and pictures: the half of the seam that makes tensors.

The other half, which runs the model, is `distime.model.seam.Seam`. The processor and the training
data ask for no more than stands here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distime.backbones.template import INTERNVL2_5_SYSTEM, ChatTemplate, Media
from distime.errors import DisTimeError
from distime.model.heads import DEFAULT_HEAD
from distime.model.loading import DisTimeForConditionalGeneration
from distime.model.weights import read_json

Pictures = np.ndarray | Sequence[np.ndarray | Image.Image]
"""uint8 RGB `(n, H, W, 3)`, or as many such frames or pictures, of any sizes."""
Size = tuple[int, int]
"""Width and height in pixels."""


class ProcessorError(DisTimeError):
    """The processor cannot be made or does not fit its model; the message says the mend."""


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What decides how a video is shown to any model; a backbone's settings add their own.

    Attributes:
        num_frames: frames of a video, unless a call says otherwise.
        sampling: how the frames of a video are chosen, unless a call says otherwise; one of
            `distime.processing.sampling.RULES`. Published evaluations and training name their own.
        fps: frames for each second of a video, in place of `num_frames`; None for none.
        max_frames: most frames that `fps` gives.
        max_video_tokens: budget of visual tokens for a whole video, None for none. It sets the size
            of frames where a backbone has them of any, and their number where it has not.
        system_message: the system turn; None for no such turn.
        time_head: of the model, one of `distime.model.heads.HEAD_NAMES`: with some, prompts and
            answers have times as words.
    """

    num_frames: int = 16
    sampling: str = "by_time"
    fps: float | None = None
    max_frames: int | None = None
    max_video_tokens: int | None = None
    system_message: str | None = INTERNVL2_5_SYSTEM
    time_head: str = DEFAULT_HEAD

    def __post_init__(self):
        if self.num_frames < 1:
            raise ProcessorError(f"num_frames must be at least 1, got {self.num_frames}")
        if (self.fps is None) != (self.max_frames is None):
            given, other = ("fps", "max_frames")[:: -1 if self.fps is None else 1]
            raise ProcessorError(
                f"{given} {getattr(self, given):g} without {other}: give both, such as fps 2 and "
                "max_frames 512"
            )
        if self.fps is not None and not (self.fps > 0 and math.isfinite(self.fps)):
            raise ProcessorError(f"fps must be above 0, got {self.fps}")
        for name in ("max_frames", "max_video_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ProcessorError(f"{name} must be at least 1, got {value}")

    @property
    def frames_in_words(self) -> str:
        """How many frames of a video are shown, for a person."""
        number = f"{self.num_frames} frames"
        if self.fps is not None:
            number = f"{self.fps:g} frames a second, at most {self.max_frames}"
        budget = self.max_video_tokens
        return number if budget is None else f"{number}, within {budget} visual tokens"

    @property
    def frame_in_words(self) -> str:
        """What a frame becomes, for a person."""
        raise NotImplementedError


class Backbone(ABC):
    """One backbone; `distime.backbones.BACKBONES` has one instance of each.

    Pixels and what goes with them are a dictionary of tensors: `pixel_values`, whose first
    dimension runs over the pictures (or their patches) in order, and where pictures differ in size
    `image_grid_thw` `(G, 3)`. They are the arguments of the model's `encode_images`.

    Attributes:
        name: on command lines and in saved processors.
        model_class: the class that runs the model.
        settings_class: what its processor can be told.
        template_class: how it writes turns and media.
    """

    name: ClassVar[str]
    model_class: ClassVar[type[DisTimeForConditionalGeneration]]
    settings_class: ClassVar[type[CommonSettings]]
    template_class: ClassVar[type[ChatTemplate]] = ChatTemplate

    def reads(self, config: dict[str, Any]) -> bool:
        """Whether a folder with this config.json holds a model of this backbone."""
        ours = config.get("model_type") == self.model_class.config_class.model_type
        return ours or self.model_class.reads(config)

    @abstractmethod
    def read_settings(self, folder: Path, config: dict[str, Any]) -> CommonSettings:
        """Make the settings for a checkpoint that was saved without our processor.

        Args:
            folder: of the checkpoint.
            config: its config.json.

        Raises:
            ProcessorError: the files do not say what is needed.
        """

    def misfits(
        self, settings: CommonSettings, placeholders: Sequence[int], config: Any
    ) -> dict[str, tuple[Any, Any]]:
        """What a model's configuration says otherwise: name -> (processor's, model's).

        Args:
            settings: of the processor.
            placeholders: ids of `ChatTemplate.placeholders`.
            config: of the model.
        """
        ours, theirs = placeholders[0], config.image_token_id
        name = self.template_class.placeholders[0]
        return {} if ours == theirs else {name: (ours, theirs)}

    # ------------------------------------------------------------------ pictures

    @abstractmethod
    def video(
        self, frames: Pictures, settings: CommonSettings, raw: bool = False
    ) -> dict[str, Tensor]:
        """Make the tensors of one video's frames.

        Args:
            frames: of any sizes.
            settings: of the processor.
            raw: the pixels stay uint8, and `encode_images` normalises them.
        """

    @abstractmethod
    def images(
        self,
        pictures: Iterable[Image.Image],
        settings: CommonSettings,
        tiled: bool = True,
        raw: bool = False,
    ) -> dict[str, Tensor]:
        """Make the tensors of still images, of which there may be none.

        Args:
            pictures: RGB.
            settings: of the processor.
            tiled: they may be shown in more detail than frames, as the settings say.
            raw: see `video`.
        """

    @abstractmethod
    def video_media(self, num_frames: int, size: Size | None, settings: CommonSettings) -> Media:
        """What the prompt needs to know of a video.

        Args:
            num_frames: that it is shown with.
            size: of its frames; None only if `frames_have_sizes` is False.
            settings: of the processor.
        """

    @abstractmethod
    def image_media(
        self, sizes: Sequence[Size], settings: CommonSettings, tiled: bool = True
    ) -> Media:
        """What the prompt needs to know of still images, from their sizes."""

    frames_have_sizes: ClassVar[bool] = False
    """Whether the number of a frame's tokens depends on its size."""
    frames_per_slot: ClassVar[int] = 1
    """Frames that become one slot."""

    adjustable: ClassVar[tuple[str, ...]] = ("num_frames", "fps", "max_frames", "max_video_tokens")
    """Settings of how a video is shown that can be changed for a model as it is."""

    def frame_tokens(self, settings: CommonSettings) -> tuple[float, int]:
        """The fewest tokens that one frame of a video takes, and those of a video besides.

        Where sizes count, frames get smaller to keep to a budget (`max_video_tokens`).
        """
        media = self.video_media(1, None, settings)
        return media.tokens_per_image, media.num_extra

    def fit(self, settings: CommonSettings, config: Any) -> None:  # noqa: B027 (most need nothing)
        """Let a model's configuration follow settings that were changed.

        Args:
            settings: of the processor.
            config: of the model; changed in place.
        """

    def slot_times(self, times: Sequence[float]) -> Sequence[float]:
        """One time for every slot, from the times of the frames; a slot is a frame by default."""
        return times

    def statistics(self, settings: CommonSettings) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation of red, green and blue that pixels are normalised with."""
        return settings.image_mean, settings.image_std

    # ------------------------------------------------------------------ positions

    def positions(
        self,
        input_ids: Sequence[int],
        placeholders: Sequence[int],
        grid: Tensor | None,
        settings: CommonSettings,
    ) -> Tensor | None:
        """Positions `(D, T)` of one sequence where a token has D coordinates; None where it has
        one and they count up.

        Args:
            input_ids: T ids.
            placeholders: ids of `ChatTemplate.placeholders`.
            grid: `(G, 3)`, the sequence's part of `image_grid_thw`.
            settings: of the processor.
        """
        return None

    # ------------------------------------------------------------------ tiny models

    @abstractmethod
    def tiny(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_frames: int,
    ) -> tuple[DisTimeForConditionalGeneration, CommonSettings]:
        """Make a small model with random weights.

        Args:
            tokenizer: with `ChatTemplate.added_tokens`.
            image_size: pixels of a frame's side, which is shown as 2 x 2 patches.
            patch_size: pixels of a patch's side.
            hidden_size: width of the language model.
            num_layers: of the language model.
            num_frames: of a video.
        """


def saved_processor(folder: Path, kind: str) -> dict[str, Any]:
    """What transformers' own processor of a checkpoint was saved with; empty where none was.

    Args:
        folder: of the checkpoint.
        kind: "image" or "video".
    """
    names = {"image": "preprocessor_config.json", "video": "video_preprocessor_config.json"}
    # Since release 5 one file holds what several held before.
    files = {name: folder / name for name in ("processor_config.json", names[kind])}
    found = {name: read_json(file) for name, file in files.items() if file.is_file()}
    whole = found.get("processor_config.json", {}).get(f"{kind}_processor")
    return whole or found.get(names[kind], {})
