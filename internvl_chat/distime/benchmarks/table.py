"""One Markdown table of every benchmark scored or scorable in a results folder.

Rows are metrics, columns are our checkpoints, the published DisTime models and their peers.
Published DisTime numbers are headline values of this package on the published predictions, so
that both sides follow the same conventions; peers' numbers are those of their papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from distime.benchmarks.base import Benchmark
from distime.benchmarks.registry import benchmarks, score
from distime.benchmarks.result import Result
from distime.benchmarks.runs import SCORE_FILES, find_runs
from distime.errors import DisTimeError
from distime.files import FileError
from distime.values import expect

Row = tuple[type[Benchmark], str]
"""What is compared: a benchmark, and its title or that of the user's own file."""


def build_report(
    results_dir: Path, *, on_skip: Callable[[str], None] = lambda message: None
) -> str:
    """Return the Markdown table of every run in ``results_dir``.

    Args:
        results_dir: ``<Benchmark>/<checkpoint>/``, as evaluation writes it, or what holds many.
        on_skip: called with a message for every run that cannot be scored.

    Raises:
        FileError: the folder is missing, or no run in it can be scored.
    """
    expect(results_dir.is_dir(), str(results_dir), "no such folder; give a results folder.")
    skipped: list[str] = []

    def skip(message: str) -> None:
        skipped.append(message)
        on_skip(message)

    runs: dict[str, dict[Row, Result]] = {}
    for run in find_runs(results_dir, skip):
        try:
            result = score_run(
                run.benchmark.name, run.predictions, run.ground_truth, **run.score_options
            )
        except DisTimeError as error:
            skip(str(error))
            continue
        runs.setdefault(run.predictions.parent.resolve().name, {})[run.benchmark, run.title] = (
            result
        )
    why = f" ({skipped[0]})" if skipped else ""
    expect(
        runs,
        str(results_dir),
        f"it holds no results that can be scored{why}; make some with "
        "`sh internvl_chat/evaluate.sh CHECKPOINT BENCHMARK`.",
    )
    return _markdown(runs)


def score_run(
    benchmark: str, predictions: Path, ground_truth: Path | None = None, **options: Any
) -> Result:
    """Return the score beside ``predictions`` if it is newer than they are, else score them.

    Raises:
        DisTimeError: the predictions cannot be scored.
    """
    for name in SCORE_FILES:
        kept = predictions.parent / name
        if not kept.is_file():
            continue
        if predictions.is_file() and kept.stat().st_mtime < predictions.stat().st_mtime:
            continue
        try:
            result = Result.read(kept)
        except FileError:
            continue  # The published scripts write other content to metrics.json.
        if result.benchmark == benchmark:
            return result
    truth = [ground_truth] if ground_truth else []  # else the benchmark's default
    return score(benchmark, predictions, *truth, **options)


def _markdown(runs: Mapping[str, Mapping[Row, Result]]) -> str:
    names = sorted(runs)
    models = ["DisTime-1B (published)", "DisTime-8B (published)"]
    header = ["Benchmark", "Metric", *names, *models, "Peers (their papers)"]
    numbers = ["---:"] * (len(names) + len(models))
    lines = [_row(header), _row(["---", "---", *numbers, "---"])]
    everything = set().union(*runs.values())
    order = list(benchmarks().values())
    for row in sorted(everything, key=lambda row: (order.index(row[0]), row[1])):
        entry, title = row
        results = [runs[name].get(row) for name in names]
        for metric in shown_metrics(entry, results):
            ours = [result.metrics.get(metric) if result else None for result in results]
            peers = [
                f"{peer} {values[metric]:.1f}"
                for peer, values in entry.peers.items()
                if metric in values
            ]
            published = [one.get(metric) for one in (entry.released, entry.released_8b)]
            cells = [_number(value) for value in (*ours, *published)]
            lines.append(_row([title, metric, *cells, ", ".join(peers)]))
    notes = [
        f"- {name}, {title}: {warning}"
        for name in names
        for (_, title), result in runs[name].items()
        for warning in _notes(result)
    ]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


def shown_metrics(benchmark: type[Benchmark], results: Sequence[Result | None]) -> Sequence[str]:
    """The metrics to show: the headline as far as anybody has it, or all where there is none."""
    scored = list(dict.fromkeys(chain.from_iterable(r.metrics for r in results if r is not None)))
    return [m for m in benchmark.headline if m in scored or m in benchmark.released] or scored


def _notes(result: Result) -> list[str]:
    notes = list(result.warnings)
    missing = sum(n for name, n in result.counts.items() if name.startswith("missing"))
    if missing:
        notes.append(f"{missing} predictions are missing and count as misses.")
    return notes


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
