"""One Markdown table of every benchmark scored or scorable in a results folder.

Rows are metrics, columns are our checkpoints, the published DisTime models and their peers.
Published DisTime numbers are headline values of this package on the published predictions, so
that both sides follow the same conventions; peers' numbers are those of their papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from distime.benchmarks.registry import add_file, benchmarks, find, prediction_files, score
from distime.benchmarks.result import Result
from distime.files import FileError, read_json
from distime.values import expect

RUNS = ("run.json", "run_stage1.json", "run_stage2.json")
"""What evaluation writes about a run."""

SCORE_FILES = ("score.json", "metrics.json")
"""Where a run keeps its score: as evaluation writes it, and as docs/METRICS.md suggests. It is used
instead of scoring again unless it is older than the predictions."""


def build_report(
    results_dir: Path, *, on_skip: Callable[[str], None] = lambda message: None
) -> str:
    """Return the Markdown table of every run in ``results_dir``.

    Args:
        results_dir: holds ``<Benchmark>/<checkpoint>/``, as evaluation writes it.
        on_skip: called with a message for every run that cannot be scored.

    Raises:
        FileError: the folder is missing, or no run in it can be scored.
    """
    expect(results_dir.is_dir(), str(results_dir), "no such folder; give a results folder.")
    runs: dict[str, dict[str, Result]] = {}
    for name, predictions in found_predictions(results_dir, on_skip):
        try:
            result = score_run(name, predictions)
        except FileError as error:
            on_skip(str(error))
            continue
        runs.setdefault(predictions.parent.resolve().name, {})[name] = result
    expect(
        runs,
        str(results_dir),
        "it holds no results that can be scored; make some with "
        "`sh internvl_chat/evaluate.sh CHECKPOINT BENCHMARK`.",
    )
    return _markdown(runs)


def finished_runs(results_dir: Path) -> list[Path]:
    """Return every `run.json`, of any stage, that evaluation wrote in a folder or below."""
    return sorted(path for path in results_dir.rglob("run*.json") if path.name in RUNS)


def found_predictions(
    results_dir: Path, on_skip: Callable[[str], None] = lambda message: None
) -> list[tuple[str, Path]]:
    """Return what can be scored in a folder: benchmark and prediction file of each run.

    Runs that evaluation described (`run.json`) are found anywhere; predictions alone in
    ``<Benchmark>/<checkpoint>/``, from above or from inside.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for path in finished_runs(results_dir):
        description, _ = read_json(path, "run.json of an evaluation")
        settings = description["settings"]
        if settings.get("benchmark_file"):
            add_file(settings["benchmark_file"])
        benchmark = find(settings["benchmark"])
        files = prediction_files(benchmark, [path.parent])
        if not files and any((path.parent / name).is_file() for name in SCORE_FILES):
            files = [path.parent / benchmark.predictions[0]]  # gone, but scored before
        if files:
            found[path.parent] = settings["benchmark"], files[0]
        else:
            on_skip(f"{path}: no predictions beside it that can be scored.")
    for name, entry in benchmarks().items():
        folders = {results_dir, *(results_dir / entry.title).glob("*")} - found.keys()
        for path in prediction_files(entry, sorted(folders)):
            if path.parent.resolve().parent.name == entry.title:
                found[path.parent] = name, path
    return list(found.values())


def score_run(benchmark: str, predictions: Path) -> Result:
    """Return the score beside ``predictions`` if it is newer than they are, else score them.

    Raises:
        FileError: the predictions cannot be scored.
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
    return score(benchmark, predictions)


def _markdown(runs: Mapping[str, Mapping[str, Result]]) -> str:
    names = sorted(runs)
    header = ["Benchmark", "Metric", *names, "DisTime-1B (published)", "Peers (their papers)"]
    lines = [_row(header), _row(["---", "---", *(["---:"] * (len(names) + 1)), "---"])]
    for benchmark, entry in benchmarks().items():
        if not any(benchmark in results for results in runs.values()):
            continue
        for metric in _shown(benchmark, runs):
            ours = [
                runs[name][benchmark].metrics.get(metric) if benchmark in runs[name] else None
                for name in names
            ]
            peers = [
                f"{peer} {values[metric]:.1f}"
                for peer, values in entry.peers.items()
                if metric in values
            ]
            published = entry.released.get(metric)
            cells = [_number(value) for value in (*ours, published)]
            lines.append(_row([entry.title, metric, *cells, ", ".join(peers)]))
    notes = [
        f"- {name}, {find(benchmark).title}: {warning}"
        for name in names
        for benchmark, result in runs[name].items()
        for warning in _notes(result)
    ]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


def _shown(benchmark: str, runs: Mapping[str, Mapping[str, Result]]) -> Sequence[str]:
    """The metrics to show: the headline, or all where the benchmark names none."""
    everything = [results[benchmark].metrics for results in runs.values() if benchmark in results]
    return find(benchmark).headline or list(dict.fromkeys(chain.from_iterable(everything)))


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
