"""Collect scores into one Markdown table, or write a page about every run.

  distime report internvl_chat/results
  distime report internvl_chat/results --output report.md
  distime report internvl_chat/results --html
  distime report internvl_chat/results/BENCHMARK/mine --html --examples 12

Runs with a score.json or metrics.json newer than their predictions are not scored again. With
--html each run's folder gets a report.html, one file that can be sent: metrics, a histogram of the
IoU, confidence against IoU, and the worst and best samples with pictures; index.html in
RESULTS_DIR has a line for each run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distime.benchmarks.table import build_report
from distime.cli.benchmark_file import add_benchmark_file, read_benchmark_file
from distime.files import write_text
from distime.values import expect

before_parsing = read_benchmark_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime report``."""
    parser.add_argument("results_dir", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--html", action="store_true", help="write report.html beside every run")
    add_benchmark_file(parser)
    pages = parser.add_argument_group("with --html")
    pages.add_argument(
        "--examples", type=int, metavar="N", help="show the N worst and the N best samples (6)"
    )
    pages.add_argument("--annotation", type=Path, help="annotation of the run, if it was moved")
    pages.add_argument("--video-root", type=Path, help="folder of its videos, if it was moved")


def run(args: argparse.Namespace) -> int:
    """Print the table, or the paths of the pages; say on stderr what is left out.

    Raises:
        FileError: there is nothing that can be reported.
    """
    if args.html:
        return _write_pages(args)
    for name in ("examples", "annotation", "video_root"):
        flag = "--" + name.replace("_", "-")
        expect(getattr(args, name) is None, flag, "it belongs to --html; add that or leave it out.")
    table = build_report(
        args.results_dir, on_skip=lambda message: print(f"skipped: {message}", file=sys.stderr)
    )
    print(table, end="")
    if args.output is not None:
        write_text(args.output, table)
    return 0


def _write_pages(args: argparse.Namespace) -> int:
    # Only pages need torch and matplotlib.
    from distime.show.pages import write_pages

    expect(args.output is None, "--output", "it names the table's file; leave it out with --html.")
    expect((args.examples or 0) >= 0, f"--examples {args.examples}", "give 0 or more.")
    problems: list[str] = []
    for page in write_pages(
        args.results_dir,
        examples=6 if args.examples is None else args.examples,
        annotation=args.annotation,
        video_root=args.video_root,
        on_problem=problems.append,
    ):
        print(f"wrote {page}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(problems))
