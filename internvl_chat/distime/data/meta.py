"""Meta files: which annotation files make a training mixture, and how (docs/DATA.md)."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distime.data.lines import without_repeats
from distime.data.problems import (
    ERROR,
    AnnotationError,
    Finding,
    Problem,
    is_number,
    place_of,
    show,
)


@dataclasses.dataclass(frozen=True)
class DataSource:
    """One source of a training mixture: an entry of the meta file.

    Attributes:
        name: the entry's key.
        root: folder that media paths are relative to.
        annotation: the jsonl file.
        repeat_time: below 1, the first that fraction of the items is used; an integer from 1 on,
            the items are used that many times an epoch.
        length: number of items the file should have, None where the meta file does not say.
        data_augment: True recompresses frames as JPEG of random quality before use.
    """

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1
    length: int | None = None
    data_augment: bool = False

    def sample_indices(self, num_items: int) -> np.ndarray:
        """Return the int64 item indices of one epoch, repeats included."""
        if self.repeat_time < 1:
            return np.arange(int(num_items * self.repeat_time))
        return np.tile(np.arange(num_items), int(self.repeat_time))


REQUIRED_KEYS = ("root", "annotation")
META_KEYS = tuple(field.name for field in dataclasses.fields(DataSource) if field.name != "name")


def read_meta(path: str | os.PathLike[str]) -> list[DataSource]:
    """Return the sources of a meta file, in order.

    ``root`` and ``annotation`` are relative to the meta file's folder.

    Raises:
        AnnotationError: the file is missing, is no JSON, or has a wrong entry.
    """
    path = Path(path)
    sources = []
    for found in scan_meta(path):
        if isinstance(found, Problem) and found.severity == ERROR:
            raise AnnotationError(f"{place_of(path, found.line)}: {found.message}")
        if isinstance(found, DataSource):
            sources.append(found)
    return sources


def scan_meta(path: Path) -> Iterator[DataSource | Problem]:
    """Yield a meta file's sources and the problems in it; a wrong entry is no source."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = json.loads(text, object_pairs_hook=without_repeats)
    except OSError as error:
        yield Problem(path, None, ERROR, f"cannot read the meta file: {error.strerror}")
        return
    except json.JSONDecodeError as error:
        yield Problem(path, error.lineno, ERROR, f"no JSON ({error.msg}): correct this line")
        return
    except RecursionError:
        yield Problem(path, None, ERROR, "JSON nested too deeply to be a meta file")
        return
    except ValueError as error:  # no UTF-8, a key twice, an integer of thousands of digits
        yield Problem(path, None, ERROR, str(error))
        return
    if not isinstance(entries, dict) or not entries:
        expected = '{"name": {"root": "videos", "annotation": "train.jsonl"}}'
        yield Problem(path, None, ERROR, f"the meta file must name its sources: {expected}")
        return
    for name, entry in entries.items():
        findings = list(_check_entry(entry, path.parent))
        for severity, message in findings:
            yield Problem(path, None, severity, f'source "{name}": {message}')
        if all(severity != ERROR for severity, _ in findings):
            values = {key: entry[key] for key in META_KEYS if entry.get(key) is not None}
            for key in REQUIRED_KEYS:
                values[key] = path.parent / values[key]
            yield DataSource(name, **values)


def _check_entry(entry: Any, folder: Path) -> Iterator[Finding]:
    if not isinstance(entry, dict):
        yield ERROR, f"must be an object with the keys {', '.join(META_KEYS)}"
        return
    for key in entry:
        if key not in META_KEYS:
            close = difflib.get_close_matches(key, META_KEYS, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(META_KEYS)}"
            yield ERROR, f'unknown key "{key}": {hint}'
    for key, is_there in (("root", Path.is_dir), ("annotation", Path.is_file)):
        value = entry.get(key)
        if not isinstance(value, str):
            yield ERROR, f'"{key}" must be a path, not {show(value)}'
        elif not _is_there(is_there, folder / value):
            kind = "folder" if key == "root" else "file"
            yield (
                ERROR,
                f'"{key}": there is no {kind} {folder / value} (paths are relative to the folder '
                "of the meta file, or absolute)",
            )
    repeat = entry.get("repeat_time", 1)
    if not is_number(repeat) or not 0 < repeat < 1e6 or (repeat > 1 and repeat != int(repeat)):
        yield (
            ERROR,
            f'"repeat_time" is {show(repeat)}: give a fraction below 1 to use the first part '
            "of the items, or an integer to repeat them",
        )
    length = entry.get("length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int)):
        yield ERROR, f'"length" is {show(length)}: give the number of items, or leave it out'
    if not isinstance(entry.get("data_augment", False), bool):
        yield ERROR, f'"data_augment" is {show(entry["data_augment"])}: give true or false'


def _is_there(is_there: Callable[[Path], bool], path: Path) -> bool:
    try:
        return is_there(path)
    except (OSError, ValueError):  # no permission, no path
        return False
