"""What a run learns from its samples: one file each, found by its name.

`base.py` says what an objective is; every other file here has one subclass of it. No import of
torch, so that a wrong name is told at once.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distime.train.objectives.base import Objective

NAMES = tuple(
    sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "base")
)
"""Of all objectives."""


def find(name: str) -> type[Objective]:
    """Return the objective of a name out of `NAMES`."""
    module = import_module(f"{__name__}.{name}")
    return next(
        one
        for one in vars(module).values()
        if getattr(one, "__module__", None) == module.__name__ and hasattr(one, "compute")
    )
