"""Fixtures that several test folders share."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file

from tiny_models import make_tiny_model

# CI repeats the same examples, so that a red run means a change; elsewhere new ones are sought.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "search")

# As in the processes that tests start: other numbers of threads round otherwise, and results are
# compared byte by byte.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Tensors recorded from the published implementation; not part of the repository."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"no recorded tensors of the published implementation at {SHARED / 'golden'}")
    return SHARED / "golden"


@dataclass
class Golden:
    """One recorded model: its checkpoint folder, its tensors, and the numbers beside them."""

    checkpoint: Path
    tensors: dict[str, torch.Tensor]
    numbers: dict
    pixels: dict[str, torch.Tensor]

    def case(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors below `prefix/`, by what follows it."""
        prefix += "/"
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


@pytest.fixture(scope="session")
def load_golden(golden_root):
    """Load a recorded model by its folder's name."""

    def load(variant: str) -> Golden:
        folder = golden_root / variant
        if not folder.is_dir():
            pytest.skip(f"{folder} is absent")
        return Golden(
            folder / "checkpoint",
            load_file(folder / "cases.safetensors"),
            json.loads((folder / "cases.json").read_text()),
            load_file(golden_root / "common" / "pixels.safetensors"),
        )

    return load


@pytest.fixture
def tiny_model():
    """See `tiny_models.make_tiny_model`."""
    return make_tiny_model()
