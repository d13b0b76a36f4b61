"""One Markdown table of every benchmark scored or scorable in a results folder.

Rows are metrics, columns are our checkpoints, the published DisTime models and their peers.
Published DisTime numbers are headline values of this package on the published predictions, so
that both sides follow the same conventions; peers' numbers are those of their papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from distime.metrics.files import MetricError, expect
from distime.metrics.registry import BENCHMARKS, prediction_files, score
from distime.metrics.result import Result

SCORE_FILES = ("score.json", "metrics.json")
"""Where a run keeps its score: as evaluation writes it, and as docs/METRICS.md suggests. It is used
instead of scoring again unless it is older than the predictions."""

SHOWN: Mapping[str, tuple[str, ...]] = {
    "charades": ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU"),
    "anet": ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU"),
    "qvh": ("R1@0.5", "R1@0.7", "mAP@0.5", "mAP@0.75", "mAP-average", "mIoU"),
    "youcook2_dvc": ("SODA_c", "CIDEr", "METEOR", "F1"),
    "anet_dvc": ("SODA_c", "METEOR", "CIDEr"),
    "nextgqa": ("Acc@GQA", "mIoP", "IoP@0.5", "mIoU", "IoU@0.5", "Acc@QA"),
    "mvbench": ("Avg",),
    "longvideobench": ("Accuracy_overall",),
}
"""Which metrics of a benchmark the table holds."""

DISTIME_1B: Mapping[str, Mapping[str, float]] = {
    "charades": {"R1@0.3": 78.09, "R1@0.5": 56.40, "R1@0.7": 29.68, "mIoU": 52.03},
    "anet": {"R1@0.3": 67.09, "R1@0.5": 45.41, "R1@0.7": 23.12, "mIoU": 45.24},
    "qvh": {
        "R1@0.5": 54.13,
        "R1@0.7": 27.81,
        "mAP@0.5": 47.89,
        "mAP@0.75": 19.21,
        "mAP-average": 23.16,
        "mIoU": 51.56,
    },
    "youcook2_dvc": {"SODA_c": 4.20, "CIDEr": 15.56, "METEOR": 3.73, "F1": 20.46},
    "anet_dvc": {"SODA_c": 6.20, "METEOR": 5.52, "CIDEr": 22.11},
    "nextgqa": {
        "Acc@GQA": 16.96,
        "mIoP": 33.54,
        "IoP@0.5": 23.72,
        "mIoU": 31.06,
        "IoU@0.5": 21.79,
        "Acc@QA": 65.93,
    },
    "mvbench": {"Avg": 62.75},
    "longvideobench": {"Accuracy_overall": 47.57},
}
"""Headline values of the published DisTime-InternVL2.5-1B predictions (16 frames)."""

PEERS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "charades": {
        "VTimeLLM-13B": {"R1@0.3": 55.3, "R1@0.5": 34.3, "R1@0.7": 14.7, "mIoU": 34.6},
        "TimeChat": {"R1@0.3": 51.5, "R1@0.5": 32.2, "R1@0.7": 13.4},
        "Momentor": {"R1@0.3": 42.6, "R1@0.5": 26.6, "R1@0.7": 11.6, "mIoU": 28.5},
        "HawkEye": {"R1@0.3": 50.6, "R1@0.5": 31.4, "R1@0.7": 14.5, "mIoU": 33.7},
        "TRACE": {"R1@0.3": 58.6, "R1@0.5": 40.3, "R1@0.7": 19.4, "mIoU": 38.7},
        "E.T. Chat": {"R1@0.3": 65.7, "R1@0.5": 45.9, "R1@0.7": 20.0, "mIoU": 42.3},
        "VideoMind-7B": {"R1@0.3": 73.5, "R1@0.5": 59.1, "R1@0.7": 31.2, "mIoU": 50.2},
        "TimeMarker-8B": {"R1@0.3": 73.5, "R1@0.5": 51.9},
    },
    "nextgqa": {"VideoMind-7B": {"Acc@GQA": 28.2, "mIoU": 31.4}},
    "youcook2_dvc": {"TRACE": {"CIDEr": 8.1, "F1": 22.4}},
}
"""Numbers of other papers; Charades-STA zero-shot."""


def build_report(
    results_dir: Path, *, on_skip: Callable[[str], None] = lambda message: None
) -> str:
    """Return the Markdown table of every run in ``results_dir``.

    Args:
        results_dir: holds ``<Benchmark>/<checkpoint>/``, as evaluation writes it.
        on_skip: called with a message for every run that cannot be scored.

    Raises:
        MetricError: the folder is missing, or no run in it can be scored.
    """
    expect(results_dir.is_dir(), str(results_dir), "no such folder; give a results folder.")
    runs: dict[str, dict[str, Result]] = {}
    for name, entry in BENCHMARKS.items():
        folders = sorted((results_dir / entry.title).glob("*"))
        for predictions in prediction_files(entry, folders):
            try:
                result = score_run(name, predictions)
            except MetricError as error:
                on_skip(str(error))
                continue
            runs.setdefault(predictions.parent.name, {})[name] = result
    expect(
        runs,
        str(results_dir),
        "it holds no results that can be scored; make some with "
        "`sh internvl_chat/evaluate.sh CHECKPOINT BENCHMARK`.",
    )
    return _markdown(runs)


def score_run(benchmark: str, predictions: Path) -> Result:
    """Return the score beside ``predictions`` if it is newer than they are, else score them.

    Raises:
        MetricError: the predictions cannot be scored.
    """
    for name in SCORE_FILES:
        kept = predictions.parent / name
        if not kept.is_file() or kept.stat().st_mtime < predictions.stat().st_mtime:
            continue
        try:
            result = Result.read(kept)
        except MetricError:
            continue  # The published scripts write other content to metrics.json.
        if result.benchmark == benchmark:
            return result
    return score(benchmark, predictions)


def _markdown(runs: Mapping[str, Mapping[str, Result]]) -> str:
    names = sorted(runs)
    header = ["Benchmark", "Metric", *names, "DisTime-1B (published)", "Peers (their papers)"]
    lines = [_row(header), _row(["---", "---", *(["---:"] * (len(names) + 1)), "---"])]
    for benchmark, entry in BENCHMARKS.items():
        if not any(benchmark in results for results in runs.values()):
            continue
        for metric in SHOWN[benchmark]:
            ours = [
                runs[name][benchmark].metrics.get(metric) if benchmark in runs[name] else None
                for name in names
            ]
            peers = [
                f"{peer} {values[metric]:.1f}"
                for peer, values in PEERS.get(benchmark, {}).items()
                if metric in values
            ]
            published = DISTIME_1B[benchmark].get(metric)
            cells = [_number(value) for value in (*ours, published)]
            lines.append(_row([entry.title, metric, *cells, ", ".join(peers)]))
    notes = [
        f"- {name}, {BENCHMARKS[benchmark].title}: {warning}"
        for name in names
        for benchmark, result in runs[name].items()
        for warning in _notes(result)
    ]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


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
