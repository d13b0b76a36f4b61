"""Where data, results and launch scripts lie when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "DISTIME_HOME"
"""Environment variable that names the folder of `data/`, `data_example/` and `results/`."""


def home() -> Path:
    """Return the folder that holds `data/` (videos), `data_example/` (annotations), `results/`.

    `DISTIME_HOME` names it; without it, it is `internvl_chat/` of the checkout that this package
    lies in, and the current directory for an installed package.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return checkout() or Path.cwd()


def checkout() -> Path | None:
    """Return `internvl_chat/` of the checkout that this package lies in; None: it is installed."""
    above = Path(__file__).resolve().parents[1]
    return above if (above / "evaluate.sh").is_file() else None


def scripts() -> Path:
    """Return the folder of `evaluate.sh`, `shell/distime/` and the DeepSpeed configurations.

    They are at their published places in a checkout; a wheel carries them inside the package.
    """
    return checkout() or Path(__file__).resolve().parent / "scripts"


def videos() -> Path:
    """Return the folder of the benchmarks' videos."""
    return home() / "data"


def annotations() -> Path:
    """Return the folder of the benchmarks' annotations."""
    return home() / "data_example"


def results() -> Path:
    """Return the folder that evaluation writes to."""
    return home() / "results"
