import json
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distime.processing.sampling import (
    PublishedRandom,
    eval_frame_indices,
    midpoint_frame_indices,
    sample_indices,
    sample_video,
    seconds_to_index,
    train_frame_indices,
    train_segments,
)
from distime.processing.video import VideoError, VideoReader, encode_video, open_video


class Numbers(VideoReader):
    """A video of which only the times are known."""

    def __init__(self, count, fps, timestamps=None, duration=None, first_index=0):
        self.constant_rate = timestamps is None
        self.first_index = first_index
        times = np.arange(count) / fps if timestamps is None else np.asarray(timestamps)
        super().__init__("numbers", fps, times, count / fps if duration is None else duration)

    def _decode(self, indices):
        return [np.full((2, 2, 3), index, dtype=np.uint8) for index in indices]


@pytest.fixture(scope="module")
def cases(golden_root):
    return json.loads((golden_root / "common" / "cases.json").read_text())


# --------------------------------------------------------------------------- recorded values


@pytest.mark.golden
def test_eval_rule_is_the_published_one(cases):
    for case in cases["eval_frame_indices"]:
        reader = Numbers(case["vlen"], case["fps"])
        indices, times, duration = sample_indices(reader, case["num_segments"])
        assert indices == case["indices"]
        assert times == case["frame_times"]
        assert duration == case["duration"]


@pytest.mark.golden
def test_train_rule_is_the_published_one(cases):
    for case in cases["train_frame_indices"]:
        total, wanted = case["vlen"], case["num_frames"]
        segments = train_segments(total, wanted)
        assert [first for first, _ in segments] + [segments[-1][1] + 1] == case["edges"]
        rng = PublishedRandom(case["seed"])
        assert train_frame_indices(total, wanted, rng) == case["rand"]
        assert train_frame_indices(total, wanted) == case["middle"]


@pytest.mark.golden
def test_generation_frames(golden_root):
    numbers = json.loads((golden_root / "qwen2" / "cases.json").read_text())
    for case in numbers["generate"].values():
        path = golden_root / "common" / "videos" / case["video"]
        sample = sample_video(path, case["frames"])
        assert sample.indices == case["frame_indices"]
        assert sample.times == case["frame_times"][::2]
        assert sample.duration == case["duration"]
        assert len(sample.frames) == case["frames"]


@pytest.mark.golden
def test_training_durations(golden_root):
    numbers = json.loads((golden_root / "qwen2" / "cases.json").read_text())
    lines = (golden_root / "common" / "train.jsonl").read_text().splitlines()
    videos = {item["id"]: item["video"] for item in map(json.loads, lines)}
    for name, case in numbers["forward"].items():
        with open_video(golden_root / "common" / "videos" / videos[name]) as reader:
            count = len(case["frame_times"]) // 2
            _, times, duration = sample_indices(reader, count, rule="train", rng=random.Random(0))
            possible = {round(i / reader.fps, 2) for i in range(reader.num_frames)}
        assert duration == case["duration"]
        assert set(times) | set(case["frame_times"]) <= possible


# --------------------------------------------------------------------------- the rules

counts = st.integers(1, 5000)
wanted_counts = st.integers(1, 70)
rates = st.floats(0.5, 240)


@given(counts, wanted_counts)
def test_eval_rule_properties(total, wanted):
    indices = eval_frame_indices(total, wanted)
    assert len(indices) == wanted
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < total
    steps = np.diff(indices)
    assert wanted == 1 or steps.max() - steps.min() <= 2, "not evenly spread"


@example(total=2, wanted=3, fps=1.0, start=2.0, end=2.0)
@given(counts, wanted_counts, rates, st.floats(-100, 1e4), st.floats(-100, 1e4))
def test_bounds_stay_inside_the_video(total, wanted, fps, start, end):
    indices = eval_frame_indices(total, wanted, fps=fps, bound=(start, end))
    assert len(indices) == wanted
    assert 0 <= min(indices) <= max(indices) < total
    if start <= end:
        assert indices == sorted(indices)
        low, high = max(0, round(start * fps)), min(total - 1, round(end * fps))
        if low <= high:
            assert low <= indices[0]
            assert indices[-1] <= high


@given(counts, wanted_counts, st.integers(0, 2**32 - 1), st.booleans())
def test_train_rule_properties(total, wanted, seed, published):
    rng = PublishedRandom(seed) if published else random.Random(seed)
    indices = train_frame_indices(total, wanted, rng)
    assert len(indices) == wanted
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < total
    assert len(set(indices)) == min(total, wanted)
    segments = train_segments(total, wanted)
    if all(last > first for first, last in segments):
        for index, (first, last) in zip(indices, segments, strict=True):
            assert first <= index < last, "the last frame of a segment is never drawn"
    middle = train_frame_indices(total, wanted)
    assert all(
        first <= index <= last for index, (first, last) in zip(middle, segments, strict=False)
    )


@given(counts, wanted_counts)
def test_midpoints_rule_properties(total, wanted):
    indices = midpoint_frame_indices(total, wanted)
    assert len(indices) == wanted
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < total
    if total <= wanted:
        assert indices == list(range(total)) + [total - 1] * (wanted - total)


def test_midpoints_by_hand():
    # Edges 0, 3, 6, 10: midpoints of 0-2, 3-5, 6-9.
    assert midpoint_frame_indices(10, 3) == [1, 4, 7]


def test_bound_by_hand():
    # 10 to 20 s at 30 frames/s: 300 to 600, segments of 75.
    indices = eval_frame_indices(900, 4, fps=30, bound=(10, 20))
    assert indices == [337, 412, 487, 562]
    # A window beyond the end stops at the last frame, one before the start at the first.
    assert eval_frame_indices(900, 2, fps=30, bound=(25, 99)) == [787, 861]
    assert eval_frame_indices(900, 2, fps=30, bound=(-5, 1)) == [7, 22]
    # A prediction whose end comes before its start still gives frames between the two.
    assert eval_frame_indices(900, 4, fps=30, bound=(20, 10)) == [562, 487, 412, 337]


def test_bound_of_numbered_frames_counts_from_one():
    # 12 frames 1..12 at 3 frames/s: 1 to 2 s are the frames 3 to 6.
    assert eval_frame_indices(12, 3, fps=3, bound=(1, 2), first_index=1) == [3, 4, 5]
    assert eval_frame_indices(12, 2, fps=3, first_index=1) == [3, 9]
    indices, times, duration = sample_indices(Numbers(12, 3.0, first_index=1), 2)
    assert indices == [2, 8]
    assert times == [1.0, 3.0], "the published time of frame n is n / fps"
    assert duration == 4.0


@given(st.floats(-10, 1000), st.sampled_from([2.0, 7.5, 8.0, 25.0, 29.97, 30.0]))
def test_seconds_to_index_agrees_on_constant_rates(seconds, fps):
    times = np.arange(3000) / fps
    expected = min(max(round(seconds * fps), 0), 2999)
    found = seconds_to_index(seconds, fps, times)
    # Half-way between two frames rounding decides, in the last bit.
    assert found == expected or abs(abs(seconds * fps - found) - 0.5) < 1e-6


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=60), st.floats(-5, 400))
def test_seconds_to_index_finds_the_nearest_frame(steps, seconds):
    times = np.cumsum(steps)
    found = seconds_to_index(seconds, 0.0, times)
    assert abs(times[found] - seconds) == np.abs(times - seconds).min()


def test_varying_rate_has_real_times():
    stamps = [0.0, 0.1, 0.2, 5.0, 9.0, 9.333333]
    reader = Numbers(6, 6 / 10, timestamps=stamps, duration=10.004)
    indices, times, duration = sample_indices(reader, 6)
    assert indices == eval_frame_indices(6, 6)
    assert times == [round(stamps[i], 2) for i in indices]
    assert duration == 10.0
    indices, times, _ = sample_indices(reader, 3, bound=(4.0, 9.1))
    assert indices[0] >= 3
    assert indices[-1] <= 4


def test_rounding():
    reader = Numbers(1000, 200.0)
    indices, times, duration = sample_indices(reader, 16)
    assert times == [float(np.round(i / 200, 2)) for i in indices]
    indices, times, _ = sample_indices(reader, 16, rule="train", rng=random.Random(0))
    assert times == [round(i / 200, 2) for i in indices]
    assert all(isinstance(time, float) for time in times)
    # LongVideoBench's script alone leaves the duration unrounded.
    reader = Numbers(100, 23.976)
    assert sample_indices(reader, 8)[2] == 4.17
    assert sample_indices(reader, 8, rule="midpoints")[2] == 100 / 23.976
    assert sample_indices(reader, 8, rule="midpoints")[0] == midpoint_frame_indices(100, 8)


def test_short_videos_are_welcome():
    """The published training rejects what is shorter than a second; any length above 0 will do."""
    assert sample_indices(Numbers(5, 10.0), 4, rule="train", rng=random.Random(0))[2] == 0.5
    indices, times, duration = sample_indices(Numbers(1, 1000.0), 4)
    assert (indices, times) == ([0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0])
    assert duration == 0.001, "rounding must not make it 0"
    with pytest.raises(VideoError, match="numbers: the video lasts 0.0 s"):
        sample_indices(Numbers(1, 1.0, duration=0.0), 4)


def test_the_same_seed_draws_the_same_frames():
    def draw(seed):
        return train_frame_indices(500, 16, random.Random(seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "uniform"}, "no sampling rule 'uniform'; choose one of eval, train"),
        ({"rule": "train", "bound": (0, 1)}, "a bound needs 'eval'"),
        ({"rule": "midpoints", "bound": (0, 1)}, "a bound needs 'eval'"),
        ({"rng": random.Random(0)}, "rng needs 'train'"),
        ({"num_frames": 0}, "ask for at least one frame"),
        ({"bound": (0, float("nan"))}, "is no time"),
        ({"bound": (float("-inf"), 1)}, "is no time"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_indices(Numbers(10, 5.0), **{"num_frames": 4, **arguments})
    with pytest.raises(ValueError, match="at least one"):
        eval_frame_indices(0, 4)
    with pytest.raises(ValueError, match="a frame rate above 0"):
        eval_frame_indices(10, 4, bound=(0, 1))
    with pytest.raises(ValueError, match="no counts"):
        PublishedRandom(0).sample([1, 2], 2, counts=[1, 1])


# --------------------------------------------------------------------------- on files


def test_sample_video(tmp_path):
    frames = [np.full((32, 32, 3), 40 + 4 * i, dtype=np.uint8) for i in range(40)]
    encode_video(tmp_path / "a.mp4", frames, 8)
    sample = sample_video(tmp_path / "a.mp4", 4)
    assert sample.indices == eval_frame_indices(40, 4)
    assert sample.times == [float(np.round(i / 8, 2)) for i in sample.indices]
    assert sample.duration == 5.0
    shades = sample.frames.reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(shades, [40 + 4 * i for i in sample.indices], atol=3)

    sample = sample_video(tmp_path / "a.mp4", 4, bound=(2, 3))
    assert [16 <= index <= 24 for index in sample.indices] == [True] * 4
    assert sample.duration == 5.0

    sample = sample_video(tmp_path / "a.mp4", 64, rule="train", rng=random.Random(3))
    assert sample.frames.shape == (64, 32, 32, 3)
    assert sample.indices == [*range(40)] + [39] * 24
    with pytest.raises(VideoError, match="no.mp4: no such video"):
        sample_video(tmp_path / "no.mp4", 4)
