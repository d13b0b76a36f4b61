"""Whether the model knows how good its times are: confidence against IoU.

The confidence of a time is the IoU that it expects by its own two distributions (see
`distime.processing.answers.confidence`), so the two can be compared as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Times of similar confidence.

    Attributes:
        low: smallest confidence among them.
        high: largest.
        count: how many they are.
        mean_confidence: of them.
        mean_iou: of them.
        hits: share of them with an IoU of at least 0.5.
    """

    low: float
    high: float
    count: int
    mean_confidence: float
    mean_iou: float
    hits: float


def calibration_bins(
    confidence: Sequence[float], iou: Sequence[float], least: int = 10, most: int = 10
) -> list[Bin]:
    """Cut times, ordered by confidence, into bins of equal count.

    Args:
        confidence: `n` values between 0 and 1.
        iou: `n` values between 0 and 1.
        least: fewer times than this make no bin of their own.
        most: number of bins.

    Returns:
        the bins, the least confident first; none without times.
    """
    order = np.argsort(confidence, kind="stable")
    count = min(most, max(len(order) // least, 1))
    bins = []
    for part in np.array_split(order, count):
        if len(part):
            sure, fit = np.asarray(confidence)[part], np.asarray(iou)[part]
            bins.append(
                Bin(sure[0].item(), sure[-1].item(), len(part), sure.mean().item(),
                    fit.mean().item(), (fit >= 0.5).mean().item())
            )  # fmt: skip
    return bins


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, equal values having their mean rank; NaN where undefined."""
    ranks = [_ranks(np.asarray(values, dtype=float)) for values in (x, y)]
    if len(ranks[0]) < 2 or any(np.ptp(rank) == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[group]
