"""The precision that a model is loaded in."""

from __future__ import annotations

import torch

from distime.evaluate.answering import DTYPES


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of `--dtype`; "auto" is bf16 on a GPU and fp32 elsewhere."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" else "fp32"
    return DTYPES[name]
