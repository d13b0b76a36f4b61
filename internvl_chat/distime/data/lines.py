"""The lines of a jsonl file, read one by one or in order, and their JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
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
        AnnotationError: the file cannot be read, or is one JSON list.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        offsets, numbers, end = [], [], 0
        opens_a_list = False
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    text = line.removeprefix(UTF8_BOM).strip()
                    if text:
                        if not offsets:
                            opens_a_list = text.startswith(b"[")
                        offsets.append(end)
                        numbers.append(number)
                    end += len(line)
        except OSError as error:
            raise AnnotationError(
                f"{self.path}: cannot read the annotation file: {error.strerror}"
            ) from error
        self._offsets = np.array(offsets, dtype=np.int64)
        self._numbers = np.array(numbers, dtype=np.int64)
        if opens_a_list and (len(self) == 1 or not self._is_whole(0)):
            raise AnnotationError(
                f"{place_of(self.path, numbers[0])}: the file is one JSON list: write one object "
                "per line instead, with no list around them or commas between"
            )

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
        (record,) = self.records([index])
        if isinstance(record, AnnotationError):
            raise record
        return record

    def records(self, indices: Iterable[int]) -> Iterator[Any]:
        """Yield the JSON values of items, and for a line that has none its `AnnotationError`."""
        with self.path.open("rb") as file:
            end = 0
            for index in indices:
                if (start := self._offsets[index]) != end:
                    file.seek(start)
                line = file.readline()
                end = start + len(line)
                try:
                    yield parse_json(line.removeprefix(UTF8_BOM).strip())
                except AnnotationError as error:
                    place = place_of(self.path, self.line_number(index))
                    yield AnnotationError(f"{place}: {error}")

    def _is_whole(self, index: int) -> bool:
        try:
            self.record(index)
        except AnnotationError:
            return False
        return True


def parse_json(text: bytes) -> Any:
    """Return the JSON value of a line.

    Raises:
        AnnotationError: it has none, or an object in it has a key twice; the message does not name
            the line.
    """
    try:
        return _DECODER.decode(text.decode("utf-8"))
    except AnnotationError:
        raise
    except UnicodeDecodeError as error:
        raise AnnotationError(f"no UTF-8 text ({error.reason}): convert it") from None
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"no JSON ({error.msg} at column {error.colno}): write one JSON object per line"
        ) from None
    except RecursionError:
        raise AnnotationError("JSON nested too deeply to be an item: write a flat one") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise AnnotationError("a number has thousands of digits: correct it") from None


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of a JSON object's members.

    Raises:
        AnnotationError: a key is there twice.
    """
    values = dict(pairs)
    if len(values) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise AnnotationError(f'the key "{key}" is there twice: rename or remove one')
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=without_repeats)
