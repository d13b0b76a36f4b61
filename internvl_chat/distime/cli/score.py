"""Score the predictions of a benchmark and print a table of percentages.

distime score charades results.json --gt charades_sta_test.json --output metrics.json
distime score charades                       the newest results under internvl_chat/results
distime score --compare A.json B.json        metrics files side by side
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distime.metrics import BENCHMARKS, MetricError, Result, compare, newest_predictions, score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime score``."""
    parser.add_argument("benchmark", nargs="?", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument("predictions", nargs="*", metavar="PRED", type=Path)
    parser.add_argument("--gt", type=Path, help="annotations (default: under data_example)")
    add_common_arguments(parser)
    parser.add_argument(
        "--time-unit",
        choices=("seconds", "percent"),
        help="anet_dvc: what the timestamps of a log without a unit are (default: seconds)",
    )
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="METRICS", help="put metrics files side by side"
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command and the published script names share."""
    parser.add_argument("--output", type=Path, help="write the metrics to this JSON file")
    parser.add_argument(
        "--published",
        action="store_true",
        help="also give what the published scorer computes, quirks included",
    )


def run(args: argparse.Namespace) -> int:
    """Score or compare; return 0, or 1 with a message where that is not possible."""
    try:
        if args.compare:
            expect_usage(args.benchmark is None, "--compare takes metrics files only")
            return show_comparison(args.compare)
        expect_usage(args.benchmark is not None, "name a benchmark, or use --compare")
        options = {"time_unit": args.time_unit} if args.time_unit else {}
        score_and_print(
            args.benchmark,
            args.predictions,
            args.gt,
            args.output,
            published=args.published,
            **options,
        )
    except MetricError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def expect_usage(condition: bool, message: str) -> None:
    """Raise a ``MetricError`` that points at the help unless ``condition`` holds."""
    if not condition:
        raise MetricError(f"{message}; see `distime score --help`.")


def show_comparison(paths: Sequence[Path]) -> int:
    """Print metrics files side by side, each named by the shortest part that tells them apart."""
    expect_usage(len(paths) > 1, "--compare needs at least two files")
    print(compare(list(zip(_labels(paths), map(Result.read, paths), strict=True))))
    return 0


def _labels(paths: Sequence[Path]) -> list[str]:
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{path} ({number})" for number, path in enumerate(paths, 1)]


def score_and_print(
    benchmark: str,
    predictions: Sequence[Path],
    gt: Path | None,
    output: Path | None,
    **options: Any,
) -> Result:
    """Score, print the table and write ``output``; without predictions take the newest ones."""
    if not predictions:
        predictions = [newest_predictions(benchmark)]
    print(f"scoring {', '.join(map(str, predictions))}")
    result = score(benchmark, predictions, gt, **options)
    print(result.table())
    if output is not None:
        result.write(output)
        print(f"wrote {output}")
    return result
