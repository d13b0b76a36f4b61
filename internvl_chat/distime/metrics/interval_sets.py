"""Answers that are sets of intervals: intersection over union, precision, recall, and their areas.

An interval is ``(start, end)`` in any unit, a set of them a list. Reversed intervals cover nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distime.metrics.intervals import Interval, overlap

CURVE = np.linspace(0, 1, 101)
"""Thresholds from 0 to 1 under which areas are taken."""


def whole_seconds(intervals: Sequence[Interval]) -> list[Interval]:
    """Start rounded down, end rounded up."""
    return [(math.floor(start), math.ceil(end)) for start, end in intervals]


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Sorted by start, those that overlap or touch joined, reversed ones dropped."""
    joined: list[list[float]] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [(start, end) for start, end in joined if start <= end]


def set_iou(predicted: Sequence[Interval], truth: Sequence[Interval]) -> float:
    """IoU of two sets in [0, 1]; 1 where both are empty, 0 where one is.

    Predicted intervals are merged first; true ones are taken as they are.
    """
    predicted = merged(predicted)
    if not predicted or not truth:
        return float(not predicted and not truth)
    common = sum(overlap(a, b) for a in predicted for b in truth)
    union = _length(predicted) + _length(truth) - common
    return min(max(common / (union + 1e-16), 0.0), 1.0)


def summed_recall(
    pairs: Sequence[tuple[Sequence[Interval], Sequence[Interval]]],
    thresholds: Sequence[float] = (0.3, 0.5, 0.7),
) -> dict[str, float]:
    """Return ``R1@t`` (IoU > t) and ``mIoU``, percent, as a scorer that merges nothing gives them.

    Overlaps and lengths are summed over all pairs of intervals in float32, so that a right answer
    that is given twice has an IoU of 2. What is no number counts 0.

    Args:
        pairs: predicted and true intervals of each query.
        thresholds: of R1.
    """
    ious = []
    for predicted, truth in pairs:
        a, b = (np.array(part, dtype=np.float32).reshape(-1, 2) for part in (predicted, truth))
        common = np.maximum(
            np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0]),
            np.float32(0),
        ).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = common / ((a[:, 1] - a[:, 0]).sum() + (b[:, 1] - b[:, 0]).sum() - common)
        ious.append(iou if np.isfinite(iou) else np.float32(0))
    values = np.array(ious, dtype=np.float32)
    table = {f"R1@{t}": 100 * float((values > np.float32(t)).mean()) for t in thresholds}
    return table | {"mIoU": float(100 * values.mean())}  # in float32, too


def common_length(first: Sequence[Interval], second: Sequence[Interval]) -> float:
    """Length that two sorted lists without overlaps have in common, by one walk over both.

    Lists that are not sorted, or overlap themselves, give what the walk gives.
    """
    i = j = 0
    common = 0.0
    while i < len(first) and j < len(second):
        (a, b), (c, d) = first[i], second[j]
        common += overlap((a, b), (c, d))
        if b <= d:
            i += 1
        else:
            j += 1
    return common


def precision_recall(
    predicted: Sequence[Interval], truth: Sequence[Interval]
) -> tuple[float | None, float | None]:
    """Share of the predicted and of the true length that they have in common.

    None where there is no such length. Reversed intervals are turned round first.
    """
    predicted, truth = ([tuple(sorted(one)) for one in part] for part in (predicted, truth))
    common = common_length(predicted, truth)
    said, true = _length(predicted), _length(truth)
    return (common / said if said else None), (common / true if true else None)


def area(values: Sequence[float], *, above: bool = False) -> float:
    """Area under the share of values that reach (``above``: exceed) each threshold of `CURVE`."""
    if not len(values):
        return math.nan
    array = np.asarray(values, dtype=np.float64)
    shares = [((array > t) if above else (array >= t)).mean() for t in CURVE]
    return float(np.trapezoid(shares, CURVE))


def _length(intervals: Sequence[Interval]) -> float:
    return sum(end - start for start, end in intervals)
