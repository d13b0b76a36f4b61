"""Score the predictions of a benchmark and print a table of percentages.

distime score charades results.json --gt charades_sta_test.json --output metrics.json
distime score charades                       the newest results under internvl_chat/results
distime score --compare A.json B.json        metrics files side by side
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from distime.metrics import BENCHMARKS, MetricError, Result, compare, newest_predictions, score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime score``."""
    parser.add_argument("benchmark", nargs="?", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "predictions",
        nargs="*",
        metavar="PRED",
        type=Path,
        help="prediction file (nextgqa: also the two split files; default: the newest results)",
    )
    parser.add_argument("--gt", type=Path, help="annotations (default: under data_example)")
    parser.add_argument("--output", type=Path, help="write the metrics to this JSON file")
    parser.add_argument(
        "--published",
        action="store_true",
        help="also give what the published scorer computes, quirks included",
    )
    parser.add_argument(
        "--time-unit",
        choices=("seconds", "percent"),
        help="anet_dvc: what the timestamps of a log without a unit are (default: seconds)",
    )
    parser.add_argument(
        "--task",
        choices=("captioning", "grounding"),
        help="anet_dvc: which lines of the log to score (default: captioning)",
    )
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="METRICS", help="put metrics files side by side"
    )


def run(args: argparse.Namespace) -> int:
    """Score or compare.

    Raises:
        MetricError: a file is missing or does not fit; the message says the mend.
    """
    if args.compare:
        _expect_usage(args.benchmark is None, "--compare takes metrics files only")
        _expect_usage(len(args.compare) > 1, "--compare needs at least two files")
        results = [Result.read(path) for path in args.compare]
        print(compare(list(zip(_labels(args.compare), results, strict=True))))
        return 0
    _expect_usage(args.benchmark is not None, "name a benchmark, or use --compare")
    predictions = args.predictions or [newest_predictions(args.benchmark)]
    options = {"time_unit": args.time_unit, "task": args.task}
    print(f"scoring {', '.join(map(str, predictions))}")
    result = score(
        args.benchmark,
        predictions,
        args.gt,
        published=args.published,
        **{name: value for name, value in options.items() if value is not None},
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
        raise MetricError(f"{message}; see `distime score --help`.")


def _labels(paths: Sequence[Path]) -> list[str]:
    """Name each file by the shortest end of its path that tells them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{path} ({number})" for number, path in enumerate(paths, 1)]
