"""One-to-one matching of predicted and true intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distime.metrics.intervals import Interval, overlap, reaches


def plain_iou(a: Interval, b: Interval) -> float:
    """IoU in [0, 1] by sums of lengths, which decides ties as the scorers do that use it."""
    common = overlap(a, b)
    union = (a[1] - a[0]) + (b[1] - b[0]) - common
    return common / union if union > 0 else 0.0


def best_pairs(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Return the pairs (row, column) of a one-to-one matching with the greatest sum of weights.

    As many pairs as the shorter side has; the Hungarian method by shortest augmenting paths.
    """
    if not weights or not weights[0]:
        return []
    if len(weights) > len(weights[0]):
        turned = [list(column) for column in zip(*weights, strict=True)]
        return sorted((row, column) for column, row in best_pairs(turned))
    rows, columns = len(weights), len(weights[0])
    by_row, by_column = [0.0] * (rows + 1), [0.0] * (columns + 1)  # potentials; 0 is outside
    matched = [0] * (columns + 1)
    for row in range(1, rows + 1):
        matched[0], column = row, 0
        least, came_from = [math.inf] * (columns + 1), [0] * (columns + 1)
        used = [False] * (columns + 1)
        while matched[column]:
            used[column] = True
            current, step, nearest = matched[column], math.inf, 0
            for j in range(1, columns + 1):
                if used[j]:
                    continue
                cost = -weights[current - 1][j - 1] - by_row[current] - by_column[j]
                if cost < least[j]:
                    least[j], came_from[j] = cost, column
                if least[j] < step:
                    step, nearest = least[j], j
            for j in range(columns + 1):
                if used[j]:
                    by_row[matched[j]] += step
                    by_column[j] -= step
                else:
                    least[j] -= step
            column = nearest
        while column:
            matched[column], column = matched[came_from[column]], came_from[column]
    return sorted((matched[j] - 1, j - 1) for j in range(1, columns + 1) if matched[j])


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
