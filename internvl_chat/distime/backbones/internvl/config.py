"""Configuration of DisTime over InternVL."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import InternVLConfig

from distime.model.config import TimeConfig


@strict
class DisTimeConfig(TimeConfig, InternVLConfig):
    """An `InternVLConfig` with the time parts of DisTime (paper, section 3): see `TimeConfig`."""

    # The first backbone of DisTime has the plain name, by which older folders call it.
    model_type = "distime"

    tie_word_embeddings: bool = False
