"""What benchmarks bring to the command line: `--benchmark-file`, and flags of their own."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distime.benchmarks import add_file, benchmarks
from distime.benchmarks.base import SettingsError


def add_benchmark_file(parser: argparse.ArgumentParser) -> None:
    """Add the flag."""
    parser.add_argument(
        "--benchmark-file",
        "--benchmark_file",
        type=Path,
        metavar="FILE.py",
        help="Python file that defines more benchmarks, see docs/ADD_A_BENCHMARK.md",
    )


def read_benchmark_file(argv: Sequence[str]) -> None:
    """Read the file that the flag names, if there is one: before its benchmarks' flags are parsed.

    Raises:
        SettingsError: it defines no benchmark.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_benchmark_file(parser)
    try:
        path = parser.parse_known_args(argv)[0].benchmark_file
    except argparse.ArgumentError:
        return  # the flag without its value: the command's own parser says so
    if path is not None:
        add_file(path)


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each of the benchmarks' score options; several may share a name.

    Raises:
        SettingsError: an option has the name of another flag of the command.
    """
    owners: dict[str, list[str]] = {}
    for benchmark in benchmarks().values():
        for name in benchmark.score_options:
            owners.setdefault(name, []).append(benchmark.name)
    for name, names in owners.items():
        options = [benchmarks()[one].score_options[name] for one in names]
        choices = dict.fromkeys(choice for one in options for choice in one.choices)
        pairs = zip(names, options, strict=True)
        flag = "--" + name.replace("_", "-")
        try:
            parser.add_argument(
                *dict.fromkeys((flag, f"--{name}")),
                dest=_MARK + name,
                choices=list(choices) if all(one.choices for one in options) else None,
                metavar=None if choices else options[0].metavar or name.upper(),
                help="; ".join(f"{one}: {option.meaning}" for one, option in pairs),
            )
        except argparse.ArgumentError:
            raise SettingsError(
                f"benchmark {names[-1]}: its score option {name!r} is a flag of this command "
                "already; give it another name"
            ) from None


def split_score_options(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with those score options that were given under `score_options`."""
    values = {name: value for name, value in args.items() if not name.startswith(_MARK)}
    given = {
        name.removeprefix(_MARK): value
        for name, value in args.items()
        if name.startswith(_MARK) and value is not None
    }
    return {**values, "score_options": given}


_MARK = "score option "
"""What their names in parsed arguments begin with, so that they are not taken for others."""
