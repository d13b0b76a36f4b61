from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.metrics.intervals import exact_iou, iou, overlap, reaches

times = st.decimals(-5, 200, places=2).map(float)
intervals = st.tuples(times, times)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 10), (0, 10), 1),
        ((0, 10), (5, 15), 1 / 3),
        ((0, 10), (0, 5), 1 / 2),
        ((0, 10), (10, 20), 0),  # touching
        ((0, 10), (12, 20), 0),
        ((5, 5), (0, 10), 0),  # a point in a window
        ((5, 5), (5, 5), 0),  # a point and itself
        ((8, 2), (0, 10), 0),  # reversed
        ((8, 2), (8, 2), 0),
        ((-1, -1), (0, 10), 0),
    ],
)
def test_by_hand(a, b, expected):
    assert iou(a, b) == pytest.approx(expected, abs=1e-15)
    assert float(exact_iou(a, b)) == pytest.approx(expected, abs=1e-15)
    assert overlap(a, b) == overlap(b, a)


def test_ties_are_decided_on_the_decimals():
    # (0.3 - 0.1) / (0.5 - 0.1) is a half on paper and less in float64.
    assert exact_iou((0.1, 0.3), (0.1, 0.5)) == Fraction(1, 2)
    assert iou((0.1, 0.3), (0.1, 0.5)) < 0.5
    assert reaches((0.1, 0.3), (0.1, 0.5), 0.5)
    assert not reaches((0.1, 0.29), (0.1, 0.5), 0.5)


@given(intervals, intervals)
def test_symmetric_and_within_bounds(a, b):
    assert iou(a, b) == pytest.approx(iou(b, a), abs=1e-12)
    assert 0 <= iou(a, b) <= 1
    assert 0 <= exact_iou(a, b) <= 1
    assert iou(a, b) == pytest.approx(float(exact_iou(a, b)), abs=1e-9)


@given(intervals, intervals, st.sampled_from([0.3, 0.5, 0.7, 0.95]))
def test_reaches_is_the_exact_comparison(a, b, threshold):
    assert reaches(a, b, threshold) == (exact_iou(a, b) >= Fraction(repr(threshold)))
