"""What can be wrong with training data: one error to stop at, and problems to report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distime.errors import DisTimeError

ERROR, WARNING = "error", "warning"


class AnnotationError(DisTimeError):
    """A meta or annotation file is wrong; the message names file and line and says the mend."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a file. ``line`` counts from 1, None where no line is to blame."""

    file: Path
    line: int | None
    severity: str
    message: str

    def __str__(self) -> str:
        return f"{place_of(self.file, self.line)}: {self.severity}: {self.message}"


def place_of(file: Path, line: int | None) -> str:
    """Return how messages name a line of a file, or the file."""
    return str(file) if line is None else f"{file}:{line}"


Finding = tuple[str, str]
"""(severity, message): a problem whose place is known to the caller."""


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number that a float can hold."""
    # The comparison is false for NaN and infinity.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300


def show(value: Any) -> str:
    """Return a JSON value as messages quote it: shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of a JSON object's members.

    Raises:
        AnnotationError: a key is there twice.
    """
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise AnnotationError(f'the key "{key}" is there twice: rename or remove one')
    return dict(pairs)
