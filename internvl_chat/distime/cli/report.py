"""Collect the scores of every benchmark under a results folder into one Markdown table.

  distime report internvl_chat/results
  distime report internvl_chat/results --output report.md

Runs with a score.json or metrics.json newer than their predictions are not scored again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distime.metrics.files import write_text
from distime.metrics.report import build_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime report``."""
    parser.add_argument("results_dir", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")


def run(args: argparse.Namespace) -> int:
    """Print the table and say on stderr which runs it leaves out.

    Raises:
        MetricError: there is nothing that can be scored.
    """
    table = build_report(
        args.results_dir, on_skip=lambda message: print(f"skipped: {message}", file=sys.stderr)
    )
    print(table, end="")
    if args.output is not None:
        write_text(args.output, table)
    return 0
