"""Every backbone that is registered, as a tiny model with its processor.

The worked example of docs/BACKBONES.md is registered here, as a reader of it would.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from backbone_samples import WORDS, Tiny

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.backbones import BACKBONES
from distime.toy.tiny import write_tiny_checkpoint

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "BACKBONES.md"
_example = re.search(r"```python\n# llava.py\n(.*?)```", DOCUMENT.read_text("utf-8"), re.S)
_module = sys.modules["llava"] = types.ModuleType("llava")
exec(compile(_example[1], f"{DOCUMENT}: llava.py", "exec"), _module.__dict__)


@pytest.fixture(scope="session", params=BACKBONES)
def folder(request, tmp_path_factory):
    """The folder of a tiny checkpoint in which different inputs give different outputs."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_checkpoint(
        folder,
        WORDS,
        image_size=84,
        patch_size=14,
        hidden_size=32,
        num_layers=4,
        num_frames=4,
        backbone=request.param,
    )
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(folder) -> Tiny:
    """A fresh model in evaluation mode, and its processor."""
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    return Tiny(model.eval(), DisTimeProcessor.from_pretrained(folder))
