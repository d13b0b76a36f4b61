"""Reading and checking the values of files, with errors that name the place."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from distime.files import FileError


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number (a bool is not one)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> int | float | None:
    """Return a finite number, also one written as text or as numpy prints it, else None.

    Writers that turn numbers into text leave ``"12.5"``, ``" 12 "`` or ``"np.float64(12.5)"``.
    """
    if isinstance(value, str):
        text = re.sub(r"^(?:np\.|numpy\.)?float\d*\((.*)\)$", r"\1", value.strip())
        if not re.fullmatch(NUMBER, text):
            return None
        value = float(text)
    return value if is_number(value) else None


NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
"""Regular expression of a decimal number."""


def interval(value: Any, place: str) -> tuple[float, float]:
    """Return ``value`` as an interval (start, end) of two finite numbers, in the file's unit.

    Raises:
        FileError: it is not a pair of finite numbers; ``place`` says where it stood.
    """
    pair = list(map(number, value)) if isinstance(value, list | tuple) else []
    if len(pair) != 2 or None in pair:
        raise FileError(
            f"{place}: expected [start, end] with two finite numbers, found {value!r}; "
            "write [-1, -1] where the model gave no time."
        )
    return pair[0], pair[1]


def expect_readable(unreadable: Sequence[str], total: int, place: str, form: str) -> list[str]:
    """Refuse a file of which much cannot be read; return a warning where it is little.

    Args:
        unreadable: where the unreadable rows stand, and what stands there.
        total: how many rows there are.
        place: the file.
        form: what was expected.

    Raises:
        FileError: more than half of the rows, or more than a tenth and at least five.
    """
    count = len(unreadable)
    if not count:
        return []
    shown = "; ".join(unreadable[:3]) + ("; ..." if count > 3 else "")
    problem = f"{count} of {total} rows cannot be read as {form}: {shown}"
    expect(2 * count <= total and (count < 5 or 10 * count <= total), place, f"{problem}.")
    return [f"{problem}; they count as no answer."]


def expect(condition: object, place: str, problem: str) -> None:
    """Raise ``FileError`` unless ``condition`` holds."""
    if not condition:
        raise FileError(f"{place}: {problem}")
