"""The benchmarks by name, and the one door to their scorers."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distime import paths
from distime.metrics.files import MetricError, expect
from distime.metrics.result import Result


@dataclass(frozen=True)
class Benchmark:
    """Where the parts of a benchmark are found."""

    name: str
    """Name on the command line, the same as in ``evaluate.sh``."""
    title: str
    """Name of its folder under ``results/``."""
    scorer: str
    """``module:function`` in ``distime.metrics``, called ``(pred, gt, published=..., ...)``."""
    predictions: tuple[str, ...]
    """File names that evaluation writes, best first."""
    ground_truth: str | None
    """Default annotation under ``data_example/``."""
    gt_optional: bool = False
    """Whether predictions can be scored without the annotation."""
    file_limit: int = 1
    """How many prediction files its scorer takes together."""
    options: tuple[str, ...] = ()
    """Further keyword arguments that its scorer takes."""


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "charades",
            "Charades-STA",
            "charades:score_files",
            ("results.json",),
            "charades/charades_sta_test.json",
        ),
        Benchmark(
            "anet",
            "ANet-Caption",
            "anet:score_files",
            ("results.json",),
            "anet/val_2.json",
        ),
        Benchmark(
            "qvh",
            "QVHighlight",
            "qvhighlights:score_files",
            ("results.json",),
            "qvhighlights/val.json",
            gt_optional=True,
        ),
        Benchmark(
            "youcook2_dvc",
            "YouCook2-DVC",
            "youcook2:score_files",
            ("results.json",),
            "youcook2_dvc/val.caption_coco_format.json",
        ),
        Benchmark(
            "anet_dvc",
            "ANet-Caption-DVC",
            "anet_dvc:score_files",
            ("results.txt",),
            "anet/val_2.json",
            options=("time_unit", "task"),
        ),
        Benchmark(
            "nextgqa",
            "NExtGQA",
            "nextgqa:score_files",
            ("result.json",),
            "nextgqa/gsub_test.json",
            file_limit=2,
        ),
        Benchmark(
            "mvbench",
            "MVBench",
            "multiple_choice:score_mvbench",
            # The published raw file holds the rows of one process; the final one covers all.
            ("MVBench_result_final.json", "MVBench.json"),
            None,
            gt_optional=True,
        ),
        Benchmark(
            "longvideobench",
            "LongVideoBench",
            "multiple_choice:score_longvideobench",
            ("result.json",),
            "longvideobench/lvb_val.json",
            gt_optional=True,
        ),
    )
}
"""Every benchmark by its name."""


def score(
    benchmark: str,
    pred_path: str | Path | Sequence[str | Path],
    gt_path: str | Path | None = None,
    *,
    published: bool = False,
    **options: Any,
) -> Result:
    """Score a prediction file; the door used by the command, the scripts and evaluation.

    Args:
        benchmark: a name of ``BENCHMARKS``.
        pred_path: the predictions (formats: docs/METRICS.md); ``nextgqa`` takes its two halves
            as a list, too.
        gt_path: the annotations; by default the benchmark's file under ``data_example/``.
        published: also compute what the published scorer gives.
        options: what only some benchmarks take, such as ``time_unit`` of ``anet_dvc``.

    Returns:
        The metrics in percent, with the files that were read.

    Raises:
        MetricError: unknown benchmark or option, a missing file, or one that does not fit.
    """
    entry = find(benchmark)
    unknown = options.keys() - set(entry.options)
    expect(not unknown, benchmark, f"it takes no option {', '.join(sorted(unknown))}.")
    files = [Path(p) for p in ([pred_path] if isinstance(pred_path, str | Path) else pred_path)]
    expect(
        1 <= len(files) <= entry.file_limit,
        benchmark,
        f"it takes {'one or two files' if entry.file_limit > 1 else 'one prediction file'}, "
        f"not {len(files)}.",
    )
    gt = default_ground_truth(entry)
    if gt is not None and gt_path is not None:
        gt = Path(gt_path)
    if gt is not None and gt_path is None and not gt.exists():
        if not entry.gt_optional:
            raise MetricError(
                f"{gt}: no such file; put the official annotation there or name it with --gt."
            )
        gt = None
    module, function = entry.scorer.split(":")
    scorer = getattr(importlib.import_module(f"distime.metrics.{module}"), function)
    result: Result = scorer(
        files[0] if len(files) == 1 else files, gt, published=published, **options
    )
    read = {"predictions": ", ".join(map(str, files)), **({"ground_truth": str(gt)} if gt else {})}
    return replace(result, files=read)


def find(benchmark: str) -> Benchmark:
    """Return the entry of ``benchmark``.

    Raises:
        MetricError: there is no such benchmark.
    """
    if benchmark not in BENCHMARKS:
        raise MetricError(
            f"there is no benchmark {benchmark!r}; choose one of {', '.join(BENCHMARKS)}."
        )
    return BENCHMARKS[benchmark]


def default_ground_truth(entry: Benchmark) -> Path | None:
    """Return where the benchmark's annotation is expected, or None where it has none."""
    if entry.ground_truth is None:
        return None
    return paths.annotations() / entry.ground_truth


def newest_predictions(benchmark: str, root: Path | None = None) -> Path:
    """Return the predictions of ``benchmark`` that were written last.

    Args:
        benchmark: a name of ``BENCHMARKS``.
        root: the results folder, by default ``internvl_chat/results``.

    Raises:
        MetricError: there are none; the message gives the command that makes them.
    """
    entry = find(benchmark)
    root = root or paths.results()
    runs = prediction_files(entry, (root / entry.title).glob("*"))
    if not runs:
        raise MetricError(
            f"{root / entry.title}: no {entry.predictions[0]} of any checkpoint; make one with "
            f"`sh internvl_chat/evaluate.sh CHECKPOINT {benchmark}` or name the predictions."
        )
    return max(runs, key=lambda path: path.stat().st_mtime)


def prediction_files(entry: Benchmark, folders: Iterable[Path]) -> list[Path]:
    """Return the prediction file of every folder that has one."""
    found = []
    for folder in folders:
        candidates = [folder / name for name in entry.predictions]
        found += [path for path in candidates if path.is_file()][:1]
    return found
