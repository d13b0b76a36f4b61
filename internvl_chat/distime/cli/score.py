"""Score the predictions of a benchmark and print a table of percentages.

distime score BENCHMARK results.json --gt annotation.json --output metrics.json
distime score BENCHMARK                      the newest results under internvl_chat/results
distime score --compare A.json B.json        metrics files side by side
distime score MINE results.json --benchmark-file my.py
distime score held_out.jsonl results.json    a file of your own in the training format
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from distime.benchmarks import Result, benchmarks, compare, newest_predictions, of_file, score
from distime.cli.benchmark_file import (
    add_benchmark_file,
    add_score_options,
    read_benchmark_file,
    split_score_options,
)
from distime.files import FileError

before_parsing = read_benchmark_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime score``."""
    parser.add_argument(
        "benchmark",
        nargs="?",
        metavar="BENCHMARK",
        help=f"{', '.join(benchmarks())}, or a file of your own in the training format",
    )
    parser.add_argument(
        "predictions",
        nargs="*",
        metavar="PRED",
        type=Path,
        help="prediction file, of some benchmarks several (default: the newest results)",
    )
    parser.add_argument("--gt", type=Path, help="annotations (default: under data_example)")
    parser.add_argument("--output", type=Path, help="write the metrics to this JSON file")
    parser.add_argument(
        "--published",
        action="store_true",
        help="also give what the published scorer computes, quirks included",
    )
    add_benchmark_file(parser)
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="METRICS", help="put metrics files side by side"
    )
    add_score_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score or compare.

    Raises:
        FileError: a file is missing or does not fit; the message says the mend.
    """
    if args.compare:
        _expect_usage(args.benchmark is None, "--compare takes metrics files only")
        _expect_usage(len(args.compare) > 1, "--compare needs at least two files")
        results = [Result.read(path) for path in args.compare]
        print(compare(list(zip(_labels(args.compare), results, strict=True))))
        return 0
    _expect_usage(args.benchmark is not None, "name a benchmark, or use --compare")
    if by_file := of_file(args.benchmark):
        _expect_usage(args.gt is None, f"{args.benchmark} is the truth already, leave out --gt")
        args.benchmark, args.gt = by_file.name, Path(args.benchmark)
    predictions = args.predictions or [newest_predictions(args.benchmark, annotation=args.gt)]
    print(f"scoring {', '.join(map(str, predictions))}")
    result = score(
        args.benchmark,
        predictions,
        args.gt,
        published=args.published,
        **split_score_options(vars(args))["score_options"],
    )
    print(result.table())
    if args.output is not None:
        result.write(args.output)
        print(f"wrote {args.output}")
    return 0


def script(benchmark: str, argv: Sequence[str] | None = None) -> int:
    """Run ``distime score`` with the flags of the published metric scripts.

    Args:
        benchmark: what the script scores.
        argv: its arguments, by default those of the process.

    Returns:
        The exit code of ``distime score``.
    """
    from distime.cli import main

    parser = argparse.ArgumentParser(
        description=f"Same as `distime score {benchmark}`. Without arguments it scores the newest "
        "results under internvl_chat/results."
    )
    parser.add_argument("--pred_file", "--log_path", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--gt_file", "--data_path", metavar="FILE")
    # Everything else, such as --output and --task, goes through as it is.
    args, rest = parser.parse_known_args(argv)
    gt = ["--gt", args.gt_file] if args.gt_file else []
    return main(["score", benchmark, *args.pred_file, *gt, *rest])


def _expect_usage(condition: bool, message: str) -> None:
    if not condition:
        raise FileError(f"{message}; see `distime score --help`.")


def _labels(paths: Sequence[Path]) -> list[str]:
    """Name each file by the shortest end of its path that tells them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{path} ({number})" for number, path in enumerate(paths, 1)]
