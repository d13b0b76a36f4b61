"""The backbones there are."""

from __future__ import annotations

from typing import Any

from distime.backbones.base import Backbone
from distime.backbones.internvl import InternVL
from distime.backbones.llava_onevision import LlavaOnevision
from distime.backbones.qwen_vl import Qwen2_5VL, Qwen3VL

BACKBONES: dict[str, Backbone] = {
    one.name: one for one in (InternVL(), LlavaOnevision(), Qwen3VL(), Qwen2_5VL())
}
"""By their names."""


def add(backbone: Backbone) -> None:
    """Add a backbone of one's own, from outside of this package."""
    BACKBONES[backbone.name] = backbone


def backbone_of(config: dict[str, Any]) -> Backbone | None:
    """The backbone of a model whose folder has this config.json; None if there is none."""
    return next((one for one in BACKBONES.values() if one.reads(config)), None)
