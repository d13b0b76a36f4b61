"""QVHighlights moment retrieval: R1 and mAP at IoU 0.5, 0.55, ..., 0.95, and mIoU.

Definitions and arithmetic (float64) are those of the official scorer (Lei et al., NeurIPS 2021),
so that the headline compares with papers; it is not rounded. A query may have several annotated
windows:

- R1@t: the first predicted window against the annotated window it overlaps most; a hit if
  IoU >= t. mIoU is the mean of those IoUs.
- mAP@t: predictions in listed order are matched greedily to annotated windows, average precision
  is the area under the interpolated precision-recall curve; the mean over queries.
- By length: mAP over the annotated windows of (0, 10], (10, 30] and (30, 150] seconds, each over
  the queries that have such a window. The published DisTime scorer lost this split: it prints
  the value over all windows under all three names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Query,
    restricted,
    rounded_intervals,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import read_json, write_json
from distime.metrics.average_precision import interpolated
from distime.metrics.intervals import NO_ANSWER, Interval, overlap, reaches
from distime.metrics.window_lists import parse_windows, published_windows, ranked_windows
from distime.processing.answers import Event
from distime.processing.questions import moment_retrieval_question
from distime.values import expect, expect_readable, interval, is_number

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LENGTHS = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
"""Window lengths in seconds, (above, up to and including)."""


class QVHighlights(Benchmark):
    """Every interval of an answer is kept, in order."""

    name = "qvh"
    annotation = "qvhighlights/val.json"
    videos = "qvhighlights"
    title = "QVHighlight"
    rank = 3
    ground_truth_is_optional = True
    headline = ("R1@0.5", "R1@0.7", "mAP@0.5", "mAP@0.75", "mAP-average", "mIoU")
    released = {
        "R1@0.5": 54.13,
        "R1@0.7": 27.81,
        "mAP@0.5": 47.89,
        "mAP@0.75": 19.21,
        "mAP-average": 23.16,
        "mIoU": 51.56,
    }
    released_8b = {
        "R1@0.5": 61.10,
        "R1@0.7": 37.48,
        "mAP@0.5": 53.84,
        "mAP@0.75": 28.13,
        "mAP-average": 29.65,
        "mIoU": 56.05,
    }
    official_queries, official_videos = 1550, 1519

    def queries(self) -> Iterator[Query]:
        """One query per entry of `val.json`."""
        try:
            for item in self.read_annotation():
                question = moment_retrieval_question(item["query"])
                yield Query(str(item["qid"]), item["video"], question, item, title=item["query"])
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"qid", "query", "prediction", "target", "duration"}]`; lists as strings."""
        results = [
            {
                "qid": query.item["qid"],
                "query": query.item["query"],
                "prediction": str(rounded_intervals(answer)),
                "target": str(query.item["relevant_windows"]),
                "duration": answer.duration,
            }
            for query, answer in answered
            if answer is not None
        ]
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated windows."""
        return [Event(*window) for window in query.item["relevant_windows"]]

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path | None,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score a QVHighlights ``results.json``.

        With the annotation (``val.json``) every annotated query counts, answered or not. Without it
        the windows come from the ``target`` of the predictions, as in the published scorer.
        """
        rows, counts, warnings = read_predictions(pred_path)
        if gt_path is None:
            counts["duplicates"] = len(rows) - len({row["qid"] for row in rows})
            expect(
                all(row["target"] is not None for row in rows),
                str(pred_path),
                "it has rows without `target`; name the annotation with --gt.",
            )
            queries = [Windows(row["target"], row["prediction"]) for row in rows]
            ranked = [Windows(row["target"], row["ranked"]) for row in rows]
            warnings.append(
                "annotated windows were taken from the predictions' `target`, so queries that are "
                "missing there are not noticed; name val.json with --gt."
            )
        else:
            truth = restricted(read_ground_truth(gt_path), only)
            queries, ranked = _join(rows, truth, counts, pred_path, gt_path)
        result = evaluate(queries, ranked)
        counts = {**result.counts, **counts}
        as_run: dict[str, float] = {}
        if published and rows and all(row["target"] is not None for row in rows):
            as_run = published_as_run([Windows(row["target"], row["published"]) for row in rows])
        elif published:
            warnings.append(
                "no published-as-run values: the published scorer needs `target` in every row."
            )
        return Result("qvh", result.metrics, counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`highlight_val_release.jsonl` of QVHighlights."""
        made, queries = Conversion(), []
        for item in source.json_lines("highlight_val_release.jsonl"):
            made.videos.append(item["vid"])
            if keep(item["vid"]):
                values = {key: item[key] for key in ("query", "duration", "relevant_windows")}
                qid = f"QVHighlight_{item['qid']}"
                queries.append({"video": item["vid"], "qid": qid, **values})
        made.files = {"val.json": queries}
        return made


class Windows(NamedTuple):
    """One query; times in seconds."""

    windows: list[Interval]
    predicted: list[Interval]


def _join(
    rows: list[dict[str, Any]],
    ground_truth: dict[str, list[Interval]],
    counts: Counter[str],
    pred_path: Path,
    gt_path: Path,
) -> tuple[list[Windows], list[Windows]]:
    answers: dict[str, dict[str, Any]] = {}
    for row in rows:
        counts["duplicates"] += row["qid"] in answers
        answers.setdefault(row["qid"], row)
    expect(
        not rows or answers.keys() & ground_truth.keys(),
        str(pred_path),
        f"none of its {len(answers)} qids is in {gt_path}; are these predictions of another split?",
    )
    counts["unknown"] = len(answers.keys() - ground_truth.keys())
    counts["missing"] = len(ground_truth.keys() - answers.keys())
    queries, ranked = [], []
    for qid, windows in ground_truth.items():
        row = answers.get(qid)
        if row is not None and row["target"] is not None:
            counts["target_differs"] += row["target"] != windows
        queries.append(Windows(windows, row["prediction"] if row else [NO_ANSWER]))
        ranked.append(Windows(windows, row["ranked"] if row else [NO_ANSWER]))
    return queries, ranked


def evaluate(queries: Sequence[Windows], ranked: Sequence[Windows] | None = None) -> Result:
    """Score queries that are already in memory.

    Args:
        queries: with their windows in the order of the answer.
        ranked: the same with the likeliest window first, for mAP; by default as they are.

    Raises:
        FileError: there is no query to score.
    """
    expect(queries, "ground truth", "it holds no query.")
    ranked = queries if ranked is None else ranked
    counts: Counter[str] = Counter(queries=len(queries))
    best = [_best_window(query) for query in queries]
    counts["no_answer"] = sum(-1 in query.predicted[0] for query in queries)
    counts["reversed"] = sum(s > e for query in queries for s, e in query.predicted)
    counts["ties_below_threshold"] = sum(
        reaches(query.predicted[0], window, t)
        for query, (value, window) in zip(queries, best, strict=True)
        for t in THRESHOLDS
        if t - 1e-9 < value < t
    )
    recall = {t: 100 * sum(v >= t for v, _ in best) / len(queries) for t in THRESHOLDS}
    precision = _mean_average_precision(ranked)
    metrics = {
        "R1@0.5": recall[0.5],
        "R1@0.7": recall[0.7],
        "mAP@0.5": precision[0.5],
        "mAP@0.75": precision[0.75],
        "mAP-average": _mean(list(precision.values())),
        "mIoU": 100 * _mean([value for value, _ in best]),
    }
    metrics |= {f"R1@{t}": recall[t] for t in THRESHOLDS}
    metrics["R1-average"] = _mean(list(recall.values()))
    metrics |= {f"mAP@{t}": precision[t] for t in THRESHOLDS}
    # The official scorer's own names for the same values, and its split by window length.
    metrics["MR-full-mAP"] = metrics["mAP-average"]
    metrics["MR-full-mAP@0.5"] = precision[0.5]
    metrics["MR-full-mAP@0.75"] = precision[0.75]
    for name, (above, up_to) in LENGTHS.items():
        part = _of_length(ranked, above, up_to)
        counts[f"queries_{name}"] = len(part)
        if part:
            precision = _mean_average_precision(part)
            metrics[f"MR-{name}-mAP"] = _mean(list(precision.values()))
            metrics[f"MR-{name}-mAP@0.5"] = precision[0.5]
            metrics[f"MR-{name}-mAP@0.75"] = precision[0.75]
    metrics["MR-full-R1@0.5"] = recall[0.5]
    metrics["MR-full-R1@0.7"] = recall[0.7]
    return Result("qvh", metrics, counts)


def published_as_run(queries: Sequence[Windows]) -> dict[str, float]:
    """What the published scorer prints, in percent: rounded, and without the split by length."""
    best = [_best_window(query)[0] for query in queries]
    recall = {t: round(100 * sum(v >= t for v in best) / len(best), 2) for t in THRESHOLDS}
    precision = _mean_average_precision(queries, nan_is_match=True)
    average = round(_mean(list(precision.values())), 2)
    as_run = {f"R1@{t}_rounded": value for t, value in recall.items()}
    as_run["R1-average_of_rounded"] = _mean(list(recall.values()))
    as_run |= {f"mAP@{t}_rounded": round(value, 2) for t, value in precision.items()}
    as_run["mAP-average_rounded"] = average
    as_run |= {f"MR-{name}-mAP_of_all_lengths": average for name in ("full", *LENGTHS)}
    as_run["mIoU"] = 100 * _mean(best)
    as_run["invalid_predictions"] = 100 * _mean([-1 in query.predicted[0] for query in queries])
    return as_run


def average_precision(
    query: Windows, thresholds: Sequence[float] = THRESHOLDS, *, nan_is_match: bool = False
) -> list[float]:
    """Average precision of one query at each threshold, see `distime.metrics.average_precision`."""
    return interpolated(query.predicted, query.windows, thresholds, nan_is_match=nan_is_match)


def _mean_average_precision(
    queries: Sequence[Windows], *, nan_is_match: bool = False
) -> dict[float, float]:
    table = [average_precision(query, nan_is_match=nan_is_match) for query in queries]
    columns = zip(*table, strict=True)
    return {t: 100 * _mean(c) for t, c in zip(THRESHOLDS, columns, strict=True)}


def _of_length(queries: Sequence[Windows], above: float, up_to: float) -> list[Windows]:
    part = []
    for query in queries:
        windows = [(s, e) for s, e in query.windows if above < e - s <= up_to]
        if windows:
            part.append(Windows(windows, query.predicted))
    return part


def _best_window(query: Windows) -> tuple[float, Interval]:
    """IoU of the first predicted window with the annotated one that it overlaps most."""
    first = query.predicted[0]
    values = [_hull_iou(first, window) for window in query.windows]
    best = max(range(len(values)), key=values.__getitem__)
    return values[best], query.windows[best]


def _hull_iou(a: Interval, b: Interval) -> float:
    # The official scorer divides by the hull here and by the union in mAP. Where the windows
    # overlap they are the same length but round differently, which decides ties.
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return overlap(a, b) / hull if hull else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def read_predictions(path: Path) -> tuple[list[dict[str, Any]], Counter[str], list[str]]:
    """Read ``[{"qid", "prediction": "[[s, e]]", "target": "[[s, e]]"}]``.

    ``prediction`` and ``target`` are strings or lists, see `parse_windows`. What cannot be read is
    ``[-1, -1]`` and counted.

    Returns:
        The rows, with their windows also ``ranked``, the one with the highest score first, and as
        ``published``: those that the published scorer reads; counts; warnings.

    Raises:
        FileError: the file is not of this form, or many of its predictions cannot be read.
    """
    value, _ = read_json(path, "QVHighlights results.json")
    problem = (
        'expected [{"qid": q, "prediction": "[[s, e]]", ...}]; is this another benchmark\'s file?'
    )
    expect(isinstance(value, list), str(path), problem)
    counts: Counter[str] = Counter(
        dict.fromkeys(
            ("missing", "unknown", "duplicates", "unparsable", "out_of_range", "target_differs"), 0
        )
    )
    rows, unreadable = [], []
    for line, row in enumerate(value, 1):
        place = f"{path}, row {line}"
        expect(isinstance(row, dict) and {"qid", "prediction"} <= row.keys(), place, problem)
        windows, clean = parse_windows(row["prediction"])
        if not clean:
            shown = str(row["prediction"])
            shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
            unreadable.append(f"row {line} ({row['qid']}) {shown!r}")
        duration = row["duration"] if is_number(row.get("duration")) else math.inf
        counts["out_of_range"] += any(
            window != NO_ANSWER and (window[0] < 0 or window[1] > duration) for window in windows
        )
        target = row.get("target")
        if target is not None:
            target, clean = parse_windows(target)
            expect(clean and target, place, f"target {row['target']!r} is not [[start, end], ...].")
        rows.append(
            {
                "qid": str(row["qid"]),
                "prediction": windows,
                "ranked": ranked_windows(row["prediction"]),
                "published": published_windows(row["prediction"]),
                "target": target,
            }
        )
    counts["unparsable"] = len(unreadable)
    warnings = expect_readable(unreadable, len(rows), str(path), "[[start, end], ...]")
    return rows, counts, warnings


def read_ground_truth(path: Path) -> dict[str, list[Interval]]:
    """Read ``[{"qid", "relevant_windows": [[s, e], ...]}]`` as qid -> windows.

    Raises:
        FileError: the file is not of this form.
    """
    value, _ = read_json(path, "QVHighlights annotation (val.json)")
    problem = "not a QVHighlights annotation; give val.json."
    expect(isinstance(value, list), str(path), problem)
    windows = {}
    for line, row in enumerate(value, 1):
        place = f"{path}, row {line}"
        expect(isinstance(row, dict) and {"qid", "relevant_windows"} <= row.keys(), place, problem)
        expect(row["relevant_windows"], place, "it has no relevant window.")
        windows[str(row["qid"])] = [interval(w, place) for w in row["relevant_windows"]]
    return windows
