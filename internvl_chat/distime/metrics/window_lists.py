"""Windows as result files hold them in one text: "[[10.0, 22.5], [30, 41, 0.7]]" and its like."""

from __future__ import annotations

import ast
import re
from typing import Any

from distime.files import FileError
from distime.metrics.intervals import NO_ANSWER, Interval
from distime.values import interval, is_number, number


def parse_windows(value: Any) -> tuple[list[Interval], bool]:
    """Return the windows of ``"[[s, e], ...]"`` and whether all of it could be read.

    Also read are ``[s, e, score]``, white space and line breaks, numbers in quotes and what numpy
    prints (``np.float64(10)``, ``array([[10., 20.]])``, ``[[10. 20.]]``). ``[]`` is no answer.
    """
    rows = _listed(value)
    if rows is None:
        return [NO_ANSWER], False
    windows, clean = [], True
    for row in rows:
        try:
            is_scored = (
                isinstance(row, list | tuple) and len(row) == 3 and number(row[2]) is not None
            )
            windows.append(interval(row[:2] if is_scored else row, ""))
        except FileError:
            windows.append(NO_ANSWER)
            clean = False
    return windows or [NO_ANSWER], clean


def ranked_windows(value: Any) -> list[Interval]:
    """Return the windows of `parse_windows` by falling score, equal ones in listed order."""
    windows, _ = parse_windows(value)
    rows = _listed(value) or []
    scores = [number(row[2]) if isinstance(row, list | tuple) and len(row) == 3 else None
              for row in rows]  # fmt: skip
    if not scores or None in scores:
        return windows
    order = sorted(range(len(windows)), key=lambda place: -scores[place])
    return [windows[place] for place in order]


def published_windows(value: Any) -> list[Interval]:
    """Return what the published scorer reads: a Python list of pairs of numbers, from the start."""
    if isinstance(value, str):
        if not re.match(r"\[\[.*\]\]", value):
            return [NO_ANSWER]
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [NO_ANSWER]
    if not isinstance(value, list) or not value:
        return [NO_ANSWER]
    return [
        tuple(row) if isinstance(row, list) and len(row) == 2 and all(map(is_number, row))
        else NO_ANSWER
        for row in value
    ]  # fmt: skip


def _listed(value: Any) -> list[Any] | None:
    """Return the rows that a prediction lists, None where it is no list."""
    if isinstance(value, str):
        text = re.sub(r"\b(?:np\.|numpy\.)?(?:float|int)\d*\(([^()]*)\)", r"\1", value.strip())
        text = re.sub(r",\s*dtype=[\w.]+", "", text)
        text = re.sub(r"\b(?:np\.|numpy\.|torch\.)?(?:array|tensor)\(([^()]*)\)", r"\1", text)
        # numpy prints no commas.
        text = re.sub(r"(?<=[\d.])\s+(?=[-+.\d])", ", ", re.sub(r"\]\s+\[", "], [", text))
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(value, list | tuple):
        return None
    rows = list(value)
    is_one_window = 2 <= len(rows) <= 3 and all(number(one) is not None for one in rows)
    return [rows] if is_one_window else rows
