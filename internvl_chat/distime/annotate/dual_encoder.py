"""How similar frames are to words, by any dual encoder of transformers (CLIP, SigLIP, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distime.benchmarks.base import SettingsError
from distime.files import read_json
from distime.model.hub import LOCAL, is_model, why_no_checkpoint

if TYPE_CHECKING:
    import torch

FRAMES_AT_ONCE = 32


def check_encoder(flag: str, folder: Path) -> None:
    """Refuse what is no dual encoder, without loading it.

    Args:
        flag: names it in messages.
        folder: of the model.

    Raises:
        SettingsError: it is none.
    """
    if not is_model(folder):
        raise SettingsError(f"{flag}: it {why_no_checkpoint(folder)}")
    config, _ = read_json(folder / "config.json", flag)
    config = config if isinstance(config, dict) else {}
    is_generator = any(key.startswith("image_token") for key in config)
    if is_generator or not {"text_config", "vision_config"} <= set(config):
        raise SettingsError(
            f"{flag}: it is no encoder of both text and images; give a folder of CLIP, SigLIP or "
            "another with text_config and vision_config in its config.json"
        )


class DualEncoder:
    """A model that puts images and texts into one space.

    Args:
        flag: names it in messages.
        folder: of the model and its processor.
        device: where it runs.

    Raises:
        SettingsError: transformers cannot load it, or it encodes only one of the two.
    """

    def __init__(self, flag: str, folder: Path, device: torch.device, dtype: torch.dtype):
        from transformers import AutoModel, AutoProcessor

        try:
            self.processor = AutoProcessor.from_pretrained(folder, **LOCAL)
            model = AutoModel.from_pretrained(folder, dtype=dtype, **LOCAL)
        except (OSError, ValueError, KeyError, ImportError) as error:
            first = str(error).strip().splitlines()[0]
            raise SettingsError(f"{flag}: transformers cannot load it ({first})") from error
        if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
            raise SettingsError(
                f"{flag}: a {type(model).__name__} does not encode texts and images; give CLIP, "
                "SigLIP or another dual encoder"
            )
        self.model = model.to(device).eval()
        text = self.model.config.text_config
        self.max_tokens = getattr(text, "max_position_embeddings", None)
        # SigLIP was trained with texts of full length and is wrong with shorter padding.
        is_siglip = self.model.config.model_type.startswith("siglip")
        self.padding = "max_length" if is_siglip else True

    def similarity(self, frames: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Compare frames with texts.

        Args:
            frames: uint8 RGB `(n, H, W, 3)`.
            texts: m of them.

        Returns:
            cosines `(n, m)`, float32, and how many texts were cut to the encoder's length.
        """
        words, cut = self._words(texts)
        pictures = np.concatenate(
            [
                self._pictures(frames[first : first + FRAMES_AT_ONCE])
                for first in range(0, len(frames), FRAMES_AT_ONCE)
            ]
        )
        return pictures @ words.T, cut

    def _words(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        tokenizer, cut = self.processor.tokenizer, 0
        if self.max_tokens is not None:
            lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
            cut = sum(length > self.max_tokens for length in lengths)
        inputs = self.processor(
            text=list(texts),
            padding=self.padding,
            truncation=self.max_tokens is not None,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return self._features(self.model.get_text_features, inputs), cut

    def _pictures(self, frames: np.ndarray) -> np.ndarray:
        inputs = self.processor(images=list(frames), return_tensors="pt")
        return self._features(self.model.get_image_features, inputs)

    def _features(self, encode, inputs) -> np.ndarray:
        import torch

        moved = {
            name: value.to(self.model.device, self.model.dtype)
            if value.is_floating_point()
            else value.to(self.model.device)
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            features = encode(**moved)
        if not torch.is_tensor(features):  # transformers 5 returns the encoder's whole output
            features = features.pooler_output
        return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
