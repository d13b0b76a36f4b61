"""Reading and writing the small files metrics work on, with errors that name the place."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any


class MetricError(ValueError):
    """A file cannot be scored: the message names the file, the place and the mend."""


def read_text(path: Path, what: str) -> str:
    """Return the UTF-8 text of ``path``; ``what`` names its role in error messages.

    Raises:
        MetricError: the file is missing, a folder, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MetricError(f"{path}: no such file; give the path of the {what}.") from None
    except IsADirectoryError:
        raise MetricError(f"{path} is a folder; give the {what} itself.") from None
    except UnicodeDecodeError as error:
        raise MetricError(
            f"{path}: byte {error.start} is not UTF-8; is this the {what}? Save it as UTF-8."
        ) from None


def read_json(path: Path, what: str) -> tuple[Any, list[str]]:
    """Return the JSON value in ``path`` and the keys that some object of it repeats.

    JSON objects are read like every parser does, the last value of a repeated key wins; the
    repeats are returned because they mean that predictions were overwritten.

    Raises:
        MetricError: the file cannot be read or is not JSON.
    """
    repeated: list[str] = []

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    repeated.append(key)
                seen.add(key)
        return value

    text = read_text(path, what)
    try:
        return json.loads(text, object_pairs_hook=to_dict), repeated
    except json.JSONDecodeError as error:
        raise MetricError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
            f"give the {what}, or write it again if the run that made it was cut off."
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON so that a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the whole new one.

    Raises:
        MetricError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError as error:
        raise MetricError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
