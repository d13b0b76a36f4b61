"""Average precision of intervals that are ranked, against a set of true ones (Lei et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distime.metrics.intervals import Interval, overlap


def interpolated(
    predicted: Sequence[Interval],
    truth: Sequence[Interval],
    thresholds: Sequence[float],
    *,
    nan_is_match: bool = False,
) -> list[float]:
    """Return the average precision at each threshold of IoU, in [0, 1].

    Predictions are matched in their order, each with the free true interval that it overlaps most;
    the area is that under precision over recall, made monotone from the right.

    Args:
        predicted: the likeliest first.
        truth: at least one.
        thresholds: of the IoU that a match must reach.
        nan_is_match: keep what comparing with NaN does in published scorers, where a reversed
            interval whose union with a true one is 0 counts as a match.
    """
    undefined = math.inf if nan_is_match else 0.0
    table = [[_true_iou(p, window) for window in truth] for p in predicted]
    table = [[undefined if math.isnan(v) else v for v in row] for row in table]
    orders = [sorted(range(len(row)), key=row.__getitem__)[::-1] for row in table]
    values = []
    for threshold in thresholds:
        taken: set[int] = set()
        matches = []
        for row, order in zip(table, orders, strict=True):
            free = (j for j in order if j not in taken and row[j] >= threshold)
            match = next(free, None)
            matches.append(match is not None)
            if match is not None:
                taken.add(match)
        values.append(_area(matches, len(truth)))
    return values


def _area(matches: Sequence[bool], positives: int) -> float:
    found, recalls, precisions = 0, [0.0], [0.0]
    for rank, match in enumerate(matches, 1):
        found += match
        recalls.append(found / positives)
        precisions.append(found / rank)
    area = ceiling = 0.0
    for i in range(len(matches), 0, -1):
        ceiling = max(ceiling, precisions[i])
        area += (recalls[i] - recalls[i - 1]) * ceiling
    return area


def _true_iou(a: Interval, b: Interval) -> float:
    intersection = overlap(a, b)
    union = (a[1] - a[0]) + (b[1] - b[0]) - intersection
    return intersection / union if union else math.nan
