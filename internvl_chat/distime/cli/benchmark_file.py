"""The flag that makes the benchmarks of a Python file known: `--benchmark-file`."""

from __future__ import annotations

import argparse
from pathlib import Path

from distime.benchmarks import add_file


def add_benchmark_file(parser: argparse.ArgumentParser) -> None:
    """Add the flag."""
    parser.add_argument(
        "--benchmark-file",
        type=Path,
        metavar="FILE.py",
        help="Python file that defines more benchmarks, see docs/ADD_A_BENCHMARK.md",
    )


def read_benchmark_file(args: argparse.Namespace) -> None:
    """Read the file that the flag names, if there is one.

    Raises:
        SettingsError: it defines no benchmark.
    """
    if args.benchmark_file is not None:
        add_file(args.benchmark_file)
