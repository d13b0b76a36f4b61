"""The command line of training, checked without torch.

A wrong word is found here in a tenth of a second, before anything heavy is imported and before any
process is started: unknown flags, values out of range, paths that are not there, and flags that
would have no effect.
"""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from distime.model.hub import is_model, why_no_checkpoint
from distime.train.flags import GROUPS, INHERITED, LIMITS, ArgumentError, known_flags
from distime.train.published_flags import translate


def pairs(argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Split a command line into flags, without dashes, and the words behind each.

    Raises:
        ArgumentError: it begins with a word that belongs to no flag.
    """
    words: list[tuple[str, list[str]]] = []
    for word in argv:
        if word == "-h":
            word = "--help"
        if word.startswith("--") and len(word) > 2:
            name, is_pair, value = word[2:].partition("=")
            words.append((name.replace("-", "_"), [value] if is_pair else []))
        elif words:
            words[-1][1].append(word)
        else:
            raise ArgumentError(f"{word}: a flag is expected, such as --meta_path FILE")
    yield from words


def check(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Check a command line, and put its published flags into ours.

    Args:
        argv: the words behind the command.

    Returns:
        the words for `distime.train.arguments.parse`, and what is to be said of flags that were
        translated or left out.

    Raises:
        ArgumentError: a flag is unknown, has no effect here, or its value is not allowed.
    """
    known = known_flags()
    found: list[str] = []
    notes: list[str] = []
    for name, values in translate(pairs(argv), notes):
        found += [f"--{name}", *values]
        if name in ("help", "resume_from_checkpoint") or name.removeprefix("no_") in known:
            if name in LIMITS:
                if len(values) != 1:
                    raise ArgumentError(f"--{name} {' '.join(values)}: give {LIMITS[name]}")
                LIMITS[name].check(name, values[0])
            continue
        like = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean --{like[0]}?" if like else "`distime train --help` lists them all"
        raise ArgumentError(f"--{name}: there is no such flag; {hint}")
    given = {name: " ".join(values) for name, values in pairs(found)}
    for name in _PATHS.keys() & given.keys():
        _PATHS[name](given[name])
    return found, notes


def check_required(argv: Sequence[str]) -> None:
    """Check that the flags without which nothing starts are there.

    Raises:
        ArgumentError: one of them is missing.
    """
    given = {name for name, _ in pairs(argv)}
    for name, check_value in _PATHS.items():
        if not {name, "help"} & given:
            check_value("")


def check_start(folder: str) -> None:
    """Check that there is a checkpoint to start from: a whole one, or an adapter of one.

    Raises:
        ArgumentError: there is none; says what the folder holds instead.
    """
    if not folder:
        raise ArgumentError("--model_name_or_path is required: the checkpoint to start from")
    path = Path(folder)
    if is_model(path):
        return
    within = [one.name for one in sorted(path.glob("*/")) if is_model(one)]
    hint = "give the folder of a downloaded checkpoint"
    if within:
        hint = f"it holds {', '.join(within)}: give one of these folders"
    elif path.exists():
        hint = f"it {why_no_checkpoint(path)}"
    elif folder.count("/") == 1:
        hint += f", or download it: hf download {folder} --local-dir checkpoint/{folder}"
    raise ArgumentError(f"--model_name_or_path {folder}: no config.json there; {hint}")


def check_meta(path: str) -> None:
    """Check that the meta file is there.

    Raises:
        ArgumentError: it is not.
    """
    if not path:
        raise ArgumentError("--meta_path is required: the meta file of the training data")
    if not Path(path).is_file():
        raise ArgumentError(f"--meta_path {path}: no such file")


_PATHS = {"model_name_or_path": check_start, "meta_path": check_meta}


def help_text() -> str:
    """Return what `distime train --help` says of the flags."""
    lines = []
    for group in GROUPS:
        lines.append(f"\n{group.__doc__}:")
        for one in fields(group):
            said = one.metadata["help"]
            if one.default not in (None, "", False) and f"({one.default})" not in said:
                said += f" [{one.default}]"
            lines += _described(one.name, said)
    lines.append("\nHow it is trained: flags of transformers that people set:")
    for name, said in INHERITED.items():
        lines += _described(name, said)
    lines.append("\nAll others of transformers that have an effect here: distime train --help_all")
    return "\n".join(lines)


def _described(name: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, 66)
    first = f"  --{name:<28} {wrapped[0]}"
    return [first, *(" " * 33 + line for line in wrapped[1:])]


def main(argv: Sequence[str] | None = None) -> int:
    """Check a command line: 0, or 2 and a line that says what is wrong."""
    try:
        check(sys.argv[1:] if argv is None else argv)
    except ArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
