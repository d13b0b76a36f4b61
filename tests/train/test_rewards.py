"""Rewards: by hand, against scipy, and against their owners' values where those are present."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from distime.train.rewards import REWARDS, RewardError, find_reward, merged, wasserstein

OWNERS = Path(__file__).resolve().parents[3] / "shared" / "data" / "rewards.json"

interval = st.tuples(st.integers(0, 400), st.integers(1, 80)).map(
    lambda pair: (pair[0] / 4, (pair[0] + pair[1]) / 4)
)
intervals = st.lists(interval, min_size=1, max_size=4)

BY_HAND = [
    ("tiou", [(0, 10)], [(5, 15)], 5 / 15),
    ("tiou", [(0, 4), (2, 6), (8, 10)], [(0, 10)], 0.8),
    ("tiou", [], [], 1.0),
    ("tiou", [], [(0, 1)], 0.0),
    ("tiou", [(4, 2)], [(2, 4)], 0.0),
    ("tgiou", [(0, 1)], [(3, 4)], -0.5),
    ("ngiou", [(0, 1), (5, 6)], [(0, 1)], 0.5),
    ("ngiou", [(0, 1)], [(3, 4)], 0.25),
    ("iou_v2", [(0, 10)], [(0, 20)], 0.5 * 1 * 0.9),
    ("iou_v2", [(0, 250)], [(0, 20)], 20 / 250 * (1 - 230 / 100)),
    ("twass1", [(0, 10)], [(5, 15)], math.exp(-5 / 10)),
    ("twass3", [(0, 10)], [(5, 15)], math.exp(-3 * 5 / 10)),
    ("r2twass1", [(0, 10)], [(5, 15)], math.exp(-5 / 15)),
    ("tdirac3", [(0, 10)], [(2, 12)], math.exp(-3 * 2 / 12)),
    ("precision_weight_iou", [(0, 5)], [(0, 10)], 0.5**0.6),
    ("length_ratio_penalty", [(0, 1)], [(0, 10)], -1.0),
    ("boundary_distance", [(10, 20)], [(12, 26)], -(2 + 6) / 2 / 100),
    ("boundary_distance", [(0, 1), (50, 60)], [(0, 1)], -0.5),
    ("f1", [(0, 10), (50, 60)], [(0, 10)], 2 / 3),
    ("f1", [(0, 10)], [(4, 10)], 2 / 3),
    ("cacc", [(0, 1)], [(0, 1), (2, 3)], 0.0),
]


@pytest.mark.parametrize(("name", "predicted", "truth", "expected"), BY_HAND)
def test_by_hand(name, predicted, truth, expected):
    assert REWARDS[name](predicted, truth, 100.0) == pytest.approx(expected, abs=1e-6)


@given(intervals, intervals)
def test_wasserstein_is_scipys(predicted, truth):
    steps = 40  # per second; boundaries are quarters, so every step lies in or out of a union
    sides = []
    for side in (predicted, truth):
        centres = [
            np.arange(start * steps, end * steps) / steps + 0.5 / steps
            for start, end in merged(side)
        ]
        sides.append(np.concatenate(centres))
    exact = wasserstein(predicted, truth)
    assert exact == pytest.approx(wasserstein_distance(*sides), abs=1 / steps)
    assert exact <= wasserstein(predicted, truth, 2) + 1e-9


# The hull of a set counts its gaps, so `tgiou` prefers an answer that fills them.
@given(intervals, intervals, st.sampled_from(sorted(REWARDS.keys() - {"tgiou"})))
def test_nothing_beats_the_truth(predicted, truth, name):
    truth = merged(truth)
    reward = REWARDS[name]
    best = reward(truth, truth, 200.0)
    assert best == pytest.approx(0.0 if "penalty" in name or "distance" in name else 1.0, abs=1e-6)
    assert reward(predicted, truth, 200.0) <= best + 1e-9


@given(intervals, intervals, st.floats(0, 50))
def test_moving_everything_changes_nothing(predicted, truth, shift):
    for name in ("tiou", "ngiou", "twass3", "r2twass3", "tdirac3", "tbgauss3"):
        moved = [[(s + shift, e + shift) for s, e in side] for side in (predicted, truth)]
        # Sets that merely touch may come apart by rounding, which changes little.
        assert REWARDS[name](*moved, 200.0) == pytest.approx(
            REWARDS[name](predicted, truth, 200.0), abs=1e-6
        )


def test_families_and_unknown_names():
    pair = [(0.0, 10.0)], [(5.0, 15.0)]
    assert find_reward("twass2.5")(*pair, 50.0) == pytest.approx(math.exp(-2.5 * 0.5))
    assert find_reward("tcgauss3a0.5")(*pair, 50.0) == REWARDS["tcgauss3"](*pair, 50.0)
    with pytest.raises(RewardError, match=r"no reward 'iuo'.*tiou"):
        find_reward("iuo")


@pytest.mark.skipif(not OWNERS.is_file(), reason="the owners' values are not on this machine")
def test_owners_values():
    compared = 0
    for pair in json.loads(OWNERS.read_text())["pairs"]:
        sides = [[tuple(interval) for interval in pair[key]] for key in ("pred", "truth")]
        rewards = pair["rewards"]
        expected = dict(rewards["timelens2_spans"])
        expected |= {k: v for k, v in rewards["omtg"].items() if k in ("f1", "cacc")}
        expected |= {k: v for k, v in rewards.get("time_r1", {}).items() if k in ("iou", "iou_v2")}
        for name, value in expected.items():
            try:
                reward = find_reward(name)
            except RewardError:
                assert name in ("parse", "parse_penalty", "format", "temporal_precision") or (
                    "," in name
                ), name
                continue
            assert reward(*sides, pair["duration"]) == pytest.approx(value, abs=1e-9), (
                pair["id"],
                name,
            )
            compared += 1
    assert compared > 1000
