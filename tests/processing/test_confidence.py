"""Confidence is the IoU that an answer expects of itself: checked by drawing truths from it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.metrics.intervals import iou
from distime.processing.answers import confidence
from distime.show.calibration import calibration_bins, rank_correlation

BINS = 33


def distributions(seed, sharpness):
    """Softmax of noise: the sharper, the more is on one bin."""
    logits = np.random.default_rng(seed).normal(size=(2, BINS)) * sharpness
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def draw(probabilities, count, seed):
    """IoUs of the answer with truths drawn from its own distributions."""
    rng = np.random.default_rng(seed)
    answer = tuple(sorted((probabilities * np.arange(BINS)).sum(-1)))
    drawn = np.sort([rng.choice(BINS, count, p=part) for part in probabilities], axis=0).T
    return np.array([iou(answer, tuple(one)) for one in drawn.tolist()])


@given(st.integers(0, BINS - 1), st.integers(0, BINS - 1))
def test_a_sharp_answer_is_sure_whatever_it_says(start, end):
    sharp = np.zeros((2, BINS), dtype=np.float32)
    sharp[0, start] = sharp[1, end] = 1
    assert confidence(sharp) == pytest.approx(1)


@given(st.integers(0, 1000), st.floats(0, 8))
def test_it_is_between_0_and_1_and_the_same_reversed(seed, sharpness):
    one = distributions(seed, sharpness)
    assert 0 <= confidence(one) <= 1
    assert confidence(one) == pytest.approx(confidence(one[::-1]))
    assert confidence(one) == pytest.approx(confidence(one[:, ::-1]))  # the video run backwards


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0, 6.0])
def test_it_is_what_drawing_gives(sharpness):
    for seed in range(3):
        one = distributions(seed, sharpness)
        drawn = draw(one, 4000, seed)
        assert confidence(one) == pytest.approx(
            drawn.mean(), abs=4 * drawn.std() / 4000**0.5 + 1e-6
        )


def test_it_falls_with_the_width_and_rises_with_the_length_of_the_answer():
    def around(start, end, width):
        bins = np.arange(BINS)
        weights = np.exp(-0.5 * ((bins - np.array([[start], [end]])) / width) ** 2)
        return confidence(weights / weights.sum(1, keepdims=True))

    assert around(8, 20, 0.3) > around(8, 20, 1) > around(8, 20, 3)
    # An error of one bin matters less to a long event: entropy would call the two equally sure.
    assert around(4, 28, 1.5) > around(14, 18, 1.5) + 0.2


def test_it_is_calibrated_where_the_distributions_are_true():
    sure, real = [], []
    for seed in range(400):
        one = distributions(seed, 1 + seed % 8)
        sure.append(confidence(one))
        real.append(draw(one, 1, seed)[0])
    for part in calibration_bins(sure, real, most=4):
        assert part.mean_iou == pytest.approx(part.mean_confidence, abs=0.08)
    assert rank_correlation(sure, real) > 0.5
