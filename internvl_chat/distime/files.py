"""Reading text and JSON with errors that name the place, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from distime.errors import DisTimeError


class FileError(DisTimeError):
    """A file cannot be used: the message names the file, the place and the mend."""


_POINTER = b"version https://git-lfs.github.com/spec/"


def not_downloaded(path: Path) -> str | None:
    """Say why a binary file that exists is not what its name says, judged by its first bytes.

    Returns:
        what it is and the mend, to follow the file's name in a message; None if nothing is amiss.
    """
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "is empty: its download or copy failed; get it again"
    if start.startswith(_POINTER):
        return "is a pointer of git-lfs, not the file itself: run `git lfs pull` in its folder"
    if start[:64].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "is a web page saved under this name, not the file itself: download the file again"
    return None


def read_text(path: Path, what: str) -> str:
    """Return the UTF-8 text of ``path``; ``what`` names its role in error messages.

    Raises:
        FileError: the file is missing, a folder, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileError(f"{path}: no such file; give the path of the {what}.") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder; give the {what} itself.") from None
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path}: byte {error.start} is not UTF-8; is this the {what}? Save it as UTF-8."
        ) from None


def read_json(path: Path, what: str) -> tuple[Any, list[str]]:
    """Return the JSON value in ``path`` and the keys that some object of it repeats.

    JSON objects are read like every parser does, the last value of a repeated key wins; the
    repeats are returned because they mean that values were overwritten.

    Raises:
        FileError: the file cannot be read or is not JSON.
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
        raise FileError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
            f"give the {what}, or write it again if the run that made it was cut off."
        ) from None
    except RecursionError:
        raise FileError(f"{path}: JSON nested too deeply to be the {what}.") from None


def read_rows(
    path: Path, what: str, needed: Collection[str] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of a JSON list or of JSON lines, each behind its place in the file.

    Args:
        path: the file.
        what: its role in error messages.
        needed: keys that every object has.

    Raises:
        FileError: the file cannot be read, is neither, or holds something else.
    """
    text = read_text(path, what)
    if text.lstrip().startswith("["):
        rows = [(f"{path}, row {n}", row) for n, row in enumerate(read_json(path, what)[0], 1)]
    else:
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                place = f"{path}, line {number}"
                try:
                    rows.append((place, json.loads(line)))
                except (ValueError, RecursionError) as error:
                    raise FileError(f"{place}: not JSON ({error}); give the {what}.") from None
    for place, row in rows:
        if not isinstance(row, dict):
            raise FileError(f"{place}: expected an object; give the {what}.")
        if not row.keys() >= set(needed):
            form = ", ".join(f'"{key}"' for key in needed)
            raise FileError(f"{place}: expected {{{form}, ...}}; is this the {what}?")
    return rows


def json_lines(rows: Iterable[Any]) -> str:
    """The text of a file with one JSON value a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a file to write to, which takes the name ``path`` when the block ends without an error.

    A reader sees the old file or the whole new one, and what a failed block wrote is removed. The
    file given lies in the same folder, exists already, empty, and ends in the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)  # mkstemp makes files that only their owner can read
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON so that a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the whole new one.

    Raises:
        FileError: the file cannot be written.
    """
    try:
        with written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}).") from None
