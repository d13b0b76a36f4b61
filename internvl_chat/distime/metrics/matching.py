"""One-to-one matching of predicted and true intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distime.metrics.intervals import Interval, overlap, reaches


def plain_iou(a: Interval, b: Interval) -> float:
    """IoU in [0, 1] by sums of lengths, which decides ties as the scorers do that use it."""
    common = overlap(a, b)
    union = (a[1] - a[0]) + (b[1] - b[0]) - common
    return common / union if union > 0 else 0.0


def best_pairs(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return the pairs (row, column) of a one-to-one matching with the greatest sum of weights.

    As many pairs as the shorter side has. Where several are best, scipy's choice, as scorers that
    use it have it.
    """
    if not weights or not weights[0]:
        return []
    # Here, since it takes half a second, for which `--help` and a typo must not wait.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-np.asarray(weights))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def matched_f1(predicted: Sequence[Interval], truth: Sequence[Interval], t: float) -> float:
    """F1 in [0, 1] of two sets, each interval matched with at most one of the other set.

    A pair can be matched where its IoU is at least ``t``; the matching is the largest there is.
    1 where both sets are empty, 0 where one is.
    """
    if not predicted or not truth:
        return float(not predicted and not truth)
    hits = [[float(reaches(a, b, t)) for b in truth] for a in predicted]
    matched = sum(hits[row][column] for row, column in best_pairs(hits))
    return 2 * matched / (len(predicted) + len(truth))
