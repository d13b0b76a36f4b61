"""Importing this lets transformers' `Auto` classes load our folders, without remote code.

Whatever imports a model or a processor from `distime` has imported it; a tool that names neither
says ``import distime.registration``.
"""

from __future__ import annotations

from transformers import AutoProcessor

from distime.backbones import BACKBONES, DisTimeForConditionalGeneration
from distime.processing.processor import DisTimeProcessor

__all__ = ["DisTimeForConditionalGeneration", "DisTimeProcessor"]

# The models were registered as their classes were made.
for _backbone in BACKBONES.values():
    AutoProcessor.register(_backbone.model_class.config_class, DisTimeProcessor)
