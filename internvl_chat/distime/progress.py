"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30
_LINE = "{desc}: {n} of {total_fmt} {unit}s, {elapsed} so far\n"


def progress(*args: Any, **options: Any) -> tqdm:
    """Make a `tqdm` bar; where stderr is no terminal, it writes a line every so many seconds."""
    if not sys.stderr.isatty():
        pause = SECONDS_BETWEEN_LINES
        options |= {"mininterval": pause, "maxinterval": pause, "delay": pause}
        options |= {"bar_format": _LINE, "leave": False}
    return tqdm(*args, **options)
