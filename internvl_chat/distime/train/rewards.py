"""Rewards of temporal grounding, as the field's reinforcement training defines them.

Every reward is a pure function ``reward(predicted, truth, duration) -> float`` over lists of
intervals ``(start, end)`` in seconds and the video's duration in seconds; ``REWARDS`` has them by
the names that their owners gave them. A predicted interval that ends before it starts, or where it
starts, covers nothing; what that costs is part of each definition.

Sources: TimeLens2 (``tiou``, ``tgiou``, ``ngiou``, ``twass``, ``r2twass``, ``tdirac``,
``tcgauss``, ``tbgauss``, ``precision_weight_iou``, ``length_ratio_penalty``), Time-R1 (``iou``,
``iou_v2``), OMTG (``f1``, ``cacc``). ``boundary_distance`` is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from distime.errors import DisTimeError
from distime.metrics import interval_sets, moments
from distime.metrics.intervals import Interval, iou, overlap
from distime.metrics.matching import best_pairs

Intervals = Sequence[Interval]
Reward = Callable[[Intervals, Intervals, float], float]


class RewardError(DisTimeError):
    """A reward cannot be had: the message names it and the mend."""


# ------------------------------------------------------------------ sets of intervals


def valid(intervals: Intervals) -> list[Interval]:
    """Return the intervals that end after they start, in order of their start."""
    return sorted((start, end) for start, end in intervals if end > start)


def merged(intervals: Intervals) -> list[Interval]:
    """Return the union of the intervals as disjoint ones, in order."""
    return interval_sets.merged(valid(intervals))


def length(intervals: Intervals) -> float:
    """Return the sum of the lengths in seconds; what overlaps counts as often as it is named."""
    return sum(max(0.0, end - start) for start, end in intervals)


def _shared(predicted: Intervals, truth: Intervals) -> float:
    return sum(overlap(a, b) for a in predicted for b in truth)


def _set_iou(predicted: Intervals, truth: Intervals) -> tuple[float, float]:
    """Return the IoU of the sets and the length of their union; the truth is taken as it is."""
    predicted = merged(predicted)
    shared = _shared(predicted, truth)
    union = length(predicted) + length(truth) - shared
    return (min(1.0, shared / union) if union > 0 else 0.0), union


# ------------------------------------------------------------------ overlap


def tiou(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """IoU of the two sets in [0, 1]; two empty sets agree (TimeLens2)."""
    if not valid(predicted) or not valid(truth):
        return float(not valid(predicted) and not valid(truth))
    return _set_iou(predicted, truth)[0]


def tgiou(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """IoU of the two sets less the empty share of their hull, in [-1, 1] (TimeLens2)."""
    if not valid(predicted) or not valid(truth):
        return tiou(predicted, truth, duration)
    both = valid([*predicted, *truth])
    hull = max(end for _, end in both) - both[0][0]
    value, union = _set_iou(predicted, truth)
    return min(1.0, max(-1.0, value - (hull - union) / hull))


def ngiou(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """Mean of (1 + GIoU) / 2 over the pairs of i-th intervals, in [0, 1] (TimeLens2).

    Both lists are in order of their start; an interval without a partner counts 0.
    """
    mine, theirs = valid(predicted), valid(truth)
    if not mine or not theirs:
        return tiou(predicted, truth, duration)
    pairs = zip(mine, theirs, strict=False)
    total = sum((1 + tgiou([a], [b], duration)) / 2 for a, b in pairs)
    return total / max(len(mine), len(theirs))


def precision_weight_iou(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """IoU^0.6 times precision^0.4, which prefers an answer within the truth (TimeLens2)."""
    mine = merged(predicted)
    if not mine or not valid(truth):
        return tiou(predicted, truth, duration)
    precision = min(1.0, _shared(mine, truth) / length(mine))
    return tiou(predicted, truth, duration) ** 0.6 * precision**0.4


def length_ratio_penalty(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """Minus the distance of the total lengths in powers of ten (TimeLens2)."""
    tiny = 1e-6
    return -abs(math.log10((length(predicted) + tiny) / (length(truth) + tiny)))


def hull_iou(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """Intersection over hull of the first interval with the first true one (Time-R1's ``iou``)."""
    return moments.hull_iou(predicted[0], truth[0]) if predicted and truth else 0.0


def iou_v2(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """``iou`` times one minus each boundary's distance in durations (Time-R1).

    Negative where one boundary alone lies further from the truth than the video is long.
    """
    if not predicted or not truth:
        return 0.0
    (start, end), (true_start, true_end) = predicted[0], truth[0]
    near_start = 1 - abs(start - true_start) / duration
    near_end = 1 - abs(end - true_end) / duration
    return hull_iou(predicted, truth, duration) * near_start * near_end


def boundary_distance(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """Minus the mean distance of the i-th boundaries in durations, in [-1, 0].

    Both lists are in order of their start; an interval without a partner counts -1.
    """
    mine, theirs = valid(predicted), valid(truth)
    if not mine and not theirs:
        return 0.0
    distances = [
        min(1.0, (abs(a[0] - b[0]) + abs(a[1] - b[1])) / 2 / duration)
        for a, b in zip(mine, theirs, strict=False)
    ]
    most = max(len(mine), len(theirs))
    return -(sum(distances) + most - len(distances)) / most


# ------------------------------------------------------------------ matching


def cacc(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """Whether as many intervals are named as there are (OMTG)."""
    return float(len(predicted) == len(truth))


def f1(predicted: Intervals, truth: Intervals, duration: float) -> float:
    """Mean F1 of one-to-one matches at IoU 0.3, 0.5 and 0.7 (OMTG)."""
    if not predicted or not truth:
        return float(not predicted and not truth)
    values = [[iou(a, b) for b in truth] for a in predicted]
    matched = [values[row][column] for row, column in best_pairs(values)]
    hits = [sum(value >= t for value in matched) for t in (0.3, 0.5, 0.7)]
    return sum(2 * hit / (len(predicted) + len(truth)) for hit in hits) / len(hits)


# ------------------------------------------------------------------ transport


def _quantiles(intervals: Intervals) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of mass and the seconds where they are reached, mass uniform on the union.

    Between neighbours with different shares the quantile function is linear; at a gap two seconds
    have the same share.
    """
    lengths = np.array([end - start for start, end in intervals])
    ends = np.cumsum(lengths) / lengths.sum()
    shares = np.stack([np.concatenate([[0.0], ends[:-1]]), ends], axis=1).ravel()
    return shares, np.array(intervals, dtype=float).ravel()


def wasserstein(predicted: Intervals, truth: Intervals, order: int = 1) -> float:
    """Wasserstein distance in seconds between uniform masses on the two unions.

    Args:
        predicted: seconds; its union is not empty.
        truth: likewise.
        order: 1, or 2.
    """
    (mine, at), (theirs, true_at) = _quantiles(merged(predicted)), _quantiles(merged(truth))
    edges = np.unique(np.concatenate([mine, theirs]))
    total = 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        # The difference of the quantile functions is linear between two edges.
        first, last = (
            _between(mine, at, low, high) - _between(theirs, true_at, low, high)
        ).tolist()
        if order == 2:
            mean = (first * first + first * last + last * last) / 3
        elif first * last >= 0:
            mean = (abs(first) + abs(last)) / 2
        else:
            mean = (first * first + last * last) / (2 * (abs(first) + abs(last)))
        total += (high - low) * mean
    return math.sqrt(total) if order == 2 else total


def _between(shares: np.ndarray, seconds: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the quantiles just above ``low`` and just below ``high``, within one piece."""
    piece = int(np.searchsorted(shares[1::2], (low + high) / 2))
    left, right = shares[2 * piece], shares[2 * piece + 1]
    start, end = seconds[2 * piece], seconds[2 * piece + 1]
    return start + (np.array([low, high]) - left) / (right - left) * (end - start)


def _transport(distance: Callable[[Intervals, Intervals], float]) -> Reward:
    """Make a reward in [0, 1] of a relative distance: 1 where the sets agree, 0 where one lacks."""

    def reward(predicted: Intervals, truth: Intervals, duration: float) -> float:
        if not valid(predicted) or not valid(truth):
            return tiou(predicted, truth, duration)
        return math.exp(-distance(merged(predicted), merged(truth)))

    return reward


def twass(scale: float = 3.0) -> Reward:
    """Return exp(-scale W1 / length of the true union) of uniform masses (TimeLens2)."""
    return _transport(lambda mine, theirs: scale * wasserstein(mine, theirs) / length(theirs))


def r2twass(scale: float = 3.0) -> Reward:
    """Return exp(-scale W2 / length of both's union) of uniform masses (TimeLens2)."""
    return _transport(
        lambda mine, theirs: scale * wasserstein(mine, theirs, 2) / _both(mine, theirs)
    )


def tdirac(scale: float = 3.0) -> Reward:
    """Return exp(-scale W1 / length of both's union), mass on the boundaries (TimeLens2)."""

    def distance(mine: Intervals, theirs: Intervals) -> float:
        points, true_points = np.ravel(mine), np.ravel(theirs)
        edges = np.unique(np.concatenate([points, true_points]))
        below = [
            np.searchsorted(np.sort(p), edges[:-1], side="right") / len(p)
            for p in (points, true_points)
        ]
        moved = np.abs(below[0] - below[1]) @ np.diff(edges)
        return scale * float(moved) / _both(mine, theirs)

    return _transport(distance)


def tcgauss(scale: float = 3.0, alpha: float = 0.5) -> Reward:
    """Return the same with a Gaussian at every centre, of ``alpha`` lengths width (TimeLens2)."""

    def bells(intervals: Intervals) -> list[tuple[float, float]]:
        return [((start + end) / 2, alpha * (end - start)) for start, end in intervals]

    return _gaussian(scale, bells)


def tbgauss(scale: float = 3.0, ratio: float = 0.08) -> Reward:
    """Return the same with a Gaussian at every boundary, of ``ratio`` lengths width (TimeLens2)."""

    def bells(intervals: Intervals) -> list[tuple[float, float]]:
        return [(at, ratio * (end - start)) for start, end in intervals for at in (start, end)]

    return _gaussian(scale, bells)


def _gaussian(scale: float, bells: Callable[[Intervals], list[tuple[float, float]]]) -> Reward:
    def distance(mine: Intervals, theirs: Intervals) -> float:
        pairs = [bells(mine), bells(theirs)]
        low = min(centre - 6 * width for side in pairs for centre, width in side)
        high = max(centre + 6 * width for side in pairs for centre, width in side)
        grid = np.linspace(low, high, _GRID)
        gap = np.abs(_normal_cdf(grid, pairs[0]) - _normal_cdf(grid, pairs[1]))
        moved = float(((gap[1:] + gap[:-1]) / 2 * np.diff(grid)).sum())
        return scale * moved / _both(mine, theirs)

    return _transport(distance)


_GRID = 513
"""Points of the trapezoid that TimeLens2 integrates the distance of two mixtures by."""


def _normal_cdf(grid: np.ndarray, bells: list[tuple[float, float]]) -> np.ndarray:
    total = np.zeros_like(grid)
    for centre, width in bells:
        total += [(1 + math.erf((x - centre) / (width * math.sqrt(2)))) / 2 for x in grid]
    return total / len(bells)


def _both(mine: Intervals, theirs: Intervals) -> float:
    return length(merged([*mine, *theirs]))


# ------------------------------------------------------------------ by name


REWARDS: dict[str, Reward] = {
    "tiou": tiou,
    "tgiou": tgiou,
    "ngiou": ngiou,
    "twass": twass(),
    "twass1": twass(1),
    "twass3": twass(3),
    "r2twass1": r2twass(1),
    "r2twass3": r2twass(3),
    "tdirac3": tdirac(3),
    "tcgauss3": tcgauss(3),
    "tbgauss3": tbgauss(3),
    "precision_weight_iou": precision_weight_iou,
    "length_ratio_penalty": length_ratio_penalty,
    "iou": hull_iou,
    "iou_v2": iou_v2,
    "boundary_distance": boundary_distance,
    "f1": f1,
    "cacc": cacc,
}
"""The rewards by name; ``find_reward`` also knows the families with other numbers."""

_NUMBER = r"(\d+(?:\.\d+)?)"
_FAMILIES: list[tuple[str, Callable[..., Reward]]] = [
    (f"twass{_NUMBER}", twass),
    (f"r2twass{_NUMBER}", r2twass),
    (f"tdirac{_NUMBER}", tdirac),
    (f"tcgauss{_NUMBER}(?:a{_NUMBER})?", tcgauss),
    (f"tbgauss{_NUMBER}(?:s{_NUMBER})?", tbgauss),
]


def find_reward(name: str) -> Reward:
    """Return a reward of ``REWARDS`` or of a family: ``twass0.5``, ``tcgauss1a0.25``, ...

    Raises:
        RewardError: there is none of this name.
    """
    if name in REWARDS:
        return REWARDS[name]
    for pattern, family in _FAMILIES:
        if match := re.fullmatch(pattern, name):
            return family(*(float(number) for number in match.groups() if number is not None))
    raise RewardError(
        f"there is no reward {name!r}; choose one of {', '.join(REWARDS)}, or twassB, r2twassB, "
        "tdiracB, tcgaussBaALPHA, tbgaussBsRATIO with numbers in place of the capitals."
    )
