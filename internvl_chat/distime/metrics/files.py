"""Checking the values of files that are scored, with errors that name the place."""

from __future__ import annotations

import math
from typing import Any

from distime.files import FileError as MetricError


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number (a bool is not one)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def interval(value: Any, place: str) -> tuple[float, float]:
    """Return ``value`` as an interval (start, end) of two finite numbers, in the file's unit.

    Raises:
        MetricError: it is not a pair of finite numbers; ``place`` says where it stood.
    """
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value))):
        raise MetricError(
            f"{place}: expected [start, end] with two finite numbers, found {value!r}; "
            "write [-1, -1] where the model gave no time."
        )
    return value[0], value[1]


def expect(condition: object, place: str, problem: str) -> None:
    """Raise ``MetricError`` unless ``condition`` holds."""
    if not condition:
        raise MetricError(f"{place}: {problem}")
