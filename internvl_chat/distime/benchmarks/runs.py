"""What lies in a results folder: predictions of which benchmark, and what they are scored by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distime.benchmarks.base import Benchmark
from distime.benchmarks.registry import add_file, benchmarks, prediction_files
from distime.errors import DisTimeError
from distime.files import read_json

RUN_FILES = ("run.json", "run_stage1.json", "run_stage2.json")
"""What evaluation writes about a run."""

SCORE_FILES = ("score.json", "metrics.json")
"""Where a run keeps its score: as evaluation writes it, and as docs/METRICS.md suggests. It is used
instead of scoring again unless it is older than the predictions."""


@dataclass(frozen=True)
class FoundRun:
    """Predictions that can be scored.

    Attributes:
        benchmark: they are of.
        predictions: the file.
        title: of the benchmark, or of the user's own file that was asked.
        ground_truth: what the run was scored by, if that is still there; None for the default.
        has_answers: whether evaluation made them, so that there are answers beside them.
        score_options: what the run told its metric.
    """

    benchmark: type[Benchmark]
    predictions: Path
    title: str
    ground_truth: Path | None = None
    has_answers: bool = False
    score_options: Mapping[str, Any] = field(default_factory=dict)


def run_files(results_dir: Path) -> list[Path]:
    """Every `run.json` below a folder, those of stages included."""
    return sorted(path for path in results_dir.rglob("run*.json") if path.name in RUN_FILES)


def find_runs(
    results_dir: Path, on_skip: Callable[[str], None] = lambda message: None
) -> list[FoundRun]:
    """Find the predictions in the folder of one run, or in one that holds many.

    Args:
        results_dir: `<Benchmark>/<checkpoint>/`, or what holds such folders.
        on_skip: called with a message for a `run.json` that leads to no predictions.
    """
    found: dict[Path, FoundRun] = {}
    described = run_files(results_dir)
    for path in described:
        try:
            run = _described(path)
        except DisTimeError as error:
            on_skip(str(error))
        except (KeyError, TypeError, AttributeError) as error:
            on_skip(f"{path}: not written by evaluation ({error!r}).")
        else:
            if run is None:
                on_skip(f"{path}: no predictions beside it that can be scored.")
            else:
                found[run.predictions] = run
    folders = {path.parent for path in described}
    for benchmark in benchmarks().values():
        places = {results_dir, *(results_dir / benchmark.title).glob("*")} - folders
        for path in prediction_files(benchmark, sorted(places)):
            if path.parent.resolve().parent.name == benchmark.title:
                found[path] = FoundRun(benchmark, path, benchmark.title)
    order = list(benchmarks().values())
    return sorted(found.values(), key=lambda run: (order.index(run.benchmark), run.predictions))


def _described(path: Path) -> FoundRun | None:
    settings: dict[str, Any] = read_json(path, "run.json of an evaluation")[0]["settings"]
    if settings.get("benchmark_file"):
        add_file(settings["benchmark_file"])
    benchmark = benchmarks()[settings["benchmark"]]
    truth = Path(settings["ground_truth"]) if settings.get("ground_truth") else None
    predictions = prediction_files(benchmark, [path.parent])
    if not predictions and any((path.parent / name).is_file() for name in SCORE_FILES):
        predictions = [path.parent / benchmark.predictions[0]]  # gone, but scored before
    if not predictions:
        return None
    return FoundRun(
        benchmark,
        predictions[0],
        benchmark.result_folder(Path(settings["annotation"])),
        truth if truth and truth.exists() else None,
        True,
        settings.get("score_options") or {},
    )
