"""Temporal intervals: intersection over union and exact comparison with a threshold.

An interval is a pair ``(start, end)``; all functions work in any unit as long as both intervals
share it. A reversed interval (start > end) covers nothing. Annotations and predictions are short
decimals (``24.3``), so an IoU can equal a threshold exactly; binary rounding must not decide
those cases, which is why ``reaches`` falls back to fractions when the two are close.
"""

from __future__ import annotations

from fractions import Fraction

Interval = tuple[float, float]

NO_ANSWER: Interval = (-1.0, -1.0)
"""What evaluation writes when the model produced no time."""

# Far above the rounding error of an IoU in float64 (about 1e-13 for hours-long videos), far below
# the distance between different IoUs of two-decimal seconds that matter.
_NEAR = 1e-9


def overlap(a: Interval, b: Interval) -> float:
    """Length of the intersection, 0 where the intervals do not meet or one is reversed."""
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def iou(a: Interval, b: Interval) -> float:
    """Intersection over union in [0, 1]; 0 for reversed intervals and single points."""
    intersection = overlap(a, b)
    if intersection == 0.0:
        return 0.0
    # Rounding of the difference can exceed 1 by one unit in the last place.
    return min(1.0, intersection / ((a[1] - a[0]) + (b[1] - b[0]) - intersection))


def exact_iou(a: Interval, b: Interval) -> Fraction:
    """``iou`` in rational arithmetic on the decimals that the numbers are printed as."""
    start_a, end_a = Fraction(repr(a[0])), Fraction(repr(a[1]))
    start_b, end_b = Fraction(repr(b[0])), Fraction(repr(b[1]))
    intersection = min(end_a, end_b) - max(start_a, start_b)
    if intersection <= 0:
        return Fraction(0)
    return intersection / ((end_a - start_a) + (end_b - start_b) - intersection)


def reaches(a: Interval, b: Interval, threshold: float) -> bool:
    """Whether the IoU is at least ``threshold``, decided without rounding error."""
    value = iou(a, b)
    if abs(value - threshold) > _NEAR:
        return value > threshold
    return exact_iou(a, b) >= Fraction(repr(threshold))
