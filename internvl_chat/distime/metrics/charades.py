"""Charades-STA moment retrieval: R1@{0.3, 0.5, 0.7} and mIoU.

Every annotated query counts once, whatever its video: R1@t is the share of queries whose
predicted interval has IoU >= t with the annotated one, mIoU the mean IoU. A query without a
prediction has IoU 0. Origin: TALL (Gao et al., ICCV 2017) for the task and R@n,IoU=m.

The published DisTime scorer works in float32, truncates each IoU to a whole percent before
taking the mean and divides by N + 1e-5; ``published=True`` reports that beside the exact values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from distime.files import read_json
from distime.metrics.files import MetricError, expect, interval, is_number
from distime.metrics.intervals import NO_ANSWER, Interval, iou, reaches
from distime.metrics.result import Result

THRESHOLDS = (0.3, 0.5, 0.7)

Predictions = dict[tuple[str, str], Interval]
"""(video, query) -> predicted interval in seconds."""


class Query(NamedTuple):
    """One annotated query; times in seconds."""

    video: str
    text: str
    window: Interval
    duration: float | None


def score_files(pred_path: Path, gt_path: Path, *, published: bool = False) -> Result:
    """Score a Charades-STA ``results.json`` against ``charades_sta_test.json``."""
    predictions, duplicates = read_predictions(pred_path)
    queries = read_ground_truth(gt_path)
    known = {(query.video, query.text) for query in queries}
    expect(
        not predictions or known & predictions.keys(),
        str(pred_path),
        f"none of its {len(predictions)} (video, query) pairs is in {gt_path}; "
        "are these predictions of another benchmark or split?",
    )
    result = evaluate(predictions, queries, published=published)
    counts = {**result.counts, "duplicate_keys": duplicates}
    return Result(
        result.benchmark, result.metrics, counts, result.published_as_run, result.warnings
    )


def evaluate(predictions: Predictions, queries: list[Query], *, published: bool = False) -> Result:
    """Score predictions that are already in memory.

    Raises:
        MetricError: there is no query to score.
    """
    expect(queries, "ground truth", "it holds no query.")
    names = ("missing", "no_answer", "reversed", "out_of_range", "unknown")
    counts = dict.fromkeys(names, 0)
    hits = dict.fromkeys(THRESHOLDS, 0)
    total = 0.0
    for query in queries:
        predicted = predictions.get((query.video, query.text))
        if predicted is None:
            counts["missing"] += 1
            continue
        if predicted == NO_ANSWER:
            counts["no_answer"] += 1
        elif predicted[0] > predicted[1]:
            counts["reversed"] += 1
        elif predicted[0] < 0 or predicted[1] > (query.duration or float("inf")):
            counts["out_of_range"] += 1
        total += iou(predicted, query.window)
        for threshold in THRESHOLDS:
            hits[threshold] += reaches(predicted, query.window, threshold)
    known = {(query.video, query.text) for query in queries}
    counts["unknown"] = len(predictions.keys() - known)

    metrics = {f"R1@{t}": 100 * hits[t] / len(queries) for t in THRESHOLDS}
    metrics["mIoU"] = 100 * total / len(queries)
    as_run: dict[str, float] = {}
    warnings: list[str] = []
    if published:
        try:
            as_run = published_as_run(predictions, queries)
        except MetricError as error:
            warnings.append(str(error))
    return Result("charades", metrics, {"queries": len(queries), **counts}, as_run, tuple(warnings))


def published_as_run(predictions: Predictions, queries: list[Query]) -> dict[str, float]:
    """What the published scorer prints, in percent, float32 arithmetic and truncation included.

    Raises:
        MetricError: the published scorer would stop with an exception on these predictions.
    """
    import numpy as np

    pairs = [(predictions.get((query.video, query.text)), query.window) for query in queries]
    if any(predicted is None for predicted, _ in pairs):
        raise MetricError(
            "no published-as-run values: the published scorer stops (NameError) at the first "
            "query without a prediction."
        )
    start, end, gt_start, gt_end = np.array(
        [(*predicted, *window) for predicted, window in pairs if predicted is not None],
        dtype=np.float32,
    ).T
    inter = np.maximum(np.minimum(end, gt_end) - np.maximum(start, gt_start), np.float32(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        ious = inter / ((end - start) + (gt_end - gt_start) - inter)
    as_run = {}
    for rank in (1, 5):  # One prediction per query, so both ranks are the same number.
        for t in THRESHOLDS:
            hits = int((ious >= np.float32(t)).sum())
            as_run[f"R{rank}@{t}_float32"] = 100 * hits / (len(queries) + 1e-5)
    if np.isnan(ious).any():
        raise MetricError(
            "no published-as-run values: the published scorer stops (ValueError) at a reversed "
            "prediction whose union with the annotated window is 0."
        )
    # The float32 IoU becomes a Python float before it is multiplied and truncated.
    as_run["mIoU_truncated"] = float(np.mean((ious.astype(np.float64) * 100).astype(np.int64)))
    return as_run


def read_predictions(path: Path) -> tuple[Predictions, int]:
    """Read ``{video: {query: {"start": s, "end": e}}}`` and count repeated keys.

    Raises:
        MetricError: the file is not of this form.
    """
    value, repeated = read_json(path, "Charades-STA results.json")
    problem = (
        'expected {video: {query: {"start": s, "end": e}}}; is this another benchmark\'s file?'
    )
    expect(isinstance(value, dict), str(path), problem)
    predictions: Predictions = {}
    for video, answers in value.items():
        expect(isinstance(answers, dict), f"{path}, {video}", problem)
        for query, answer in answers.items():
            place = f"{path}, {video}, {query!r}"
            expect(isinstance(answer, dict) and {"start", "end"} <= answer.keys(), place, problem)
            predictions[video, query] = interval([answer["start"], answer["end"]], place)
    return predictions, len(repeated)


def read_ground_truth(path: Path) -> list[Query]:
    """Read ``charades_sta_test.json``, or the clipped windows of ``test_float.json``.

    Raises:
        MetricError: the file is neither.
    """
    value, _ = read_json(path, "Charades-STA annotation (charades_sta_test.json)")
    try:
        if isinstance(value, list):
            return [
                _query(path, row["video"], row["query"], row["relevant_windows"][0], row)
                for row in value
            ]
        return [
            _query(path, video, annotation["label"], annotation["segment"], entry)
            for video, entry in value["database"].items()
            for annotation in entry["annotations"]
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise MetricError(
            f"{path}: not a Charades-STA annotation ({error!r}); give charades_sta_test.json "
            "or test_float.json."
        ) from None


def _query(path: Path, video: str, text: str, window: Any, entry: dict[str, Any]) -> Query:
    start, end = interval(window, f"{path}, {video}, {text!r}")
    duration = entry.get("duration")
    # As the published scorer: an annotated window in the wrong order is swapped.
    return Query(
        video, text, (min(start, end), max(start, end)), duration if is_number(duration) else None
    )
