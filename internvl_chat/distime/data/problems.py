"""What can be wrong with training data: one error to stop at, and problems to report."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from distime.errors import DisTimeError

ERROR, WARNING = "error", "warning"

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PARTICULARS = re.compile(r'^[^:]*/[^:]*(?=: )|"[^"]*"|\[[^]]*\]|\S*/\S*|[-+]?\d[\w.+-]*')


class AnnotationError(DisTimeError):
    """A meta or annotation file is wrong; the message names file and line and says the mend."""

    def __init__(self, message: str):
        super().__init__(printable(message))


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a file. ``line`` counts from 1, None where no line is to blame."""

    file: Path
    line: int | None
    severity: str
    message: str

    def __str__(self) -> str:
        return printable(f"{place_of(self.file, self.line)}: {self.severity}: {self.message}")

    @property
    def kind(self) -> str:
        """What problems that are alike have in common."""
        return f"{self.severity}: {kind_of(self.message)}"


def kind_of(message: str) -> str:
    """Return a message without names, numbers and paths."""
    return printable(_PARTICULARS.sub("…", message))


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
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return printable(text if len(text) <= 80 else text[:77] + "...")


def printable(text: str) -> str:
    """Return a text that fits one line of any output: no control characters, no surrogates."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)
