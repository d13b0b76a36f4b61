"""The lines of a jsonl file, read one by one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from distime.data.problems import AnnotationError, place_of

UTF8_BOM = b"\xef\xbb\xbf"


class JsonlIndex:
    """Random access to the lines of a jsonl file, keeping only their offsets in memory.

    Blank lines are skipped, a byte order mark and Windows line ends are accepted. The object can
    be pickled: it holds no open file.

    Raises:
        AnnotationError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        offsets, numbers, end = [], [], 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    text = line.removeprefix(UTF8_BOM).strip()
                    if text.startswith(b"[") and not offsets:
                        raise AnnotationError(
                            f"{self.path}:{number}: the file is one JSON list: write one object "
                            "per line instead, with no list around them or commas between"
                        )
                    if text:
                        offsets.append(end)
                        numbers.append(number)
                    end += len(line)
        except OSError as error:
            raise AnnotationError(
                f"{self.path}: cannot read the annotation file: {error.strerror}"
            ) from error
        self._offsets = np.array(offsets, dtype=np.int64)
        self._numbers = np.array(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets)

    def line_number(self, index: int) -> int:
        """Return the line of item ``index`` in the file, counted from 1."""
        return int(self._numbers[index])

    def record(self, index: int) -> Any:
        """Return the JSON value of item ``index``.

        Raises:
            AnnotationError: the line is no JSON or no UTF-8.
        """
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline().removeprefix(UTF8_BOM).strip()
        place = place_of(self.path, self.line_number(index))
        try:
            return json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise AnnotationError(f"{place}: no UTF-8 text ({error.reason}): convert it") from None
        except json.JSONDecodeError as error:
            raise AnnotationError(
                f"{place}: no JSON ({error.msg} at column {error.colno}): write one JSON object "
                "per line"
            ) from None
