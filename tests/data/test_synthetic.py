import ctypes
import json
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks.charades import synthetic_queries, synthetic_truth
from distime.processing.sampling import sample_video
from distime.processing.video import encoding, open_video
from distime.toy.synthetic import (
    COLORS,
    SHAPES,
    SIZE,
    STRIDE,
    ShapeEvent,
    SyntheticVideo,
    make_video,
    render,
    write_video,
    write_videos,
)


def shows(frames, color, slack=40):
    """Whether each frame has a good many pixels of about a colour of the palette."""
    # Every second pixel will do.
    distance = np.abs(frames[:, ::2, ::2].astype(np.int16) - np.array(COLORS[color], np.int16))
    return (distance.max(axis=-1) < slack).sum(axis=(1, 2)) >= 25


@given(st.integers(0, 10**9))
def test_specs(seed):
    spec = make_video(seed)
    assert spec == make_video(seed)
    assert 20 <= spec.duration <= 40
    assert spec.num_frames == spec.duration * spec.fps
    assert 1 <= len(spec.events) <= 4
    assert len({event.color for event in spec.events}) == len(spec.events)
    before = 0.0
    for event in spec.events:
        assert event.color in COLORS
        assert event.shape in SHAPES
        assert event.start >= before, "events overlap"
        assert 3 <= event.end - event.start <= 10
        assert event.end <= spec.duration
        assert (event.start * spec.fps).is_integer()
        assert (event.end * spec.fps).is_integer()
        before = event.end + 0.5
    assert SyntheticVideo.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_negative_seed_is_an_error():
    with pytest.raises(ValueError, match="seed -1 is negative"):
        make_video(-1)


def test_events_are_spread_over_the_whole_video():
    """A constant answer must not do well, or the quickstart would show nothing."""
    specs = [make_video(seed) for seed in range(600)]
    windows = np.array(
        [[e.start / s.duration, e.end / s.duration] for s in specs for e in s.events]
    )
    assert np.histogram(windows.mean(axis=1), bins=5, range=(0, 1))[0].min() > len(windows) / 10
    best = 0.0
    for start in np.linspace(0, 0.9, 19):
        for end in np.linspace(0.1, 1, 19):
            if start < end:
                low, high = np.maximum(windows[:, 0], start), np.minimum(windows[:, 1], end)
                hull = np.maximum(windows[:, 1], end) - np.minimum(windows[:, 0], start)
                best = max(best, float((np.maximum(0, high - low) / hull).mean()))
    assert best < 0.25
    used = {(event.color, event.shape) for spec in specs for event in spec.events}
    assert len(used) == len(COLORS) * len(SHAPES)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shapes_are_visible_exactly_in_their_events(seed):
    spec = make_video(seed)
    frames = render(spec)
    assert frames.shape == (spec.num_frames, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, render(spec))
    times = np.arange(spec.num_frames) / spec.fps
    for color in COLORS:
        events = [event for event in spec.events if event.color == color]
        truth = (times >= events[0].start) & (times < events[0].end) if events else times < 0
        assert np.array_equal(shows(frames, color), truth), color


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_moves_and_stays_in_the_picture(shape):
    spec = SyntheticVideo("x", 5, 20.0, 8, SIZE, (ShapeEvent("red", shape, 1.0, 19.0),))
    frames = render(spec)[8:152]
    where = (np.abs(frames.astype(int) - COLORS["red"]).max(axis=-1) == 0).reshape(144, -1)
    area = where.sum(axis=1)
    assert area.min() == area.max(), "part of it left the picture"
    assert 30 * 30 / 3 < area[0] < 45 * 45
    assert not np.array_equal(where[0], where[40])


def test_a_shape_that_does_not_exist():
    spec = SyntheticVideo("x", 5, 20.0, 8, SIZE, (ShapeEvent("red", "star", 1.0, 9.0),))
    with pytest.raises(ValueError, match="no shape 'star'; choose one of square"):
        render(spec)


def test_files(tmp_path):
    specs = write_videos(tmp_path / "videos", 4, seed=3, workers=1)
    assert [spec.seed for spec in specs] == [3 * STRIDE + i for i in range(4)]
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == sorted(
        spec.file_name for spec in specs
    )
    for spec in specs:
        path = tmp_path / "videos" / spec.file_name
        assert 5_000 < path.stat().st_size < 60_000
        with open_video(path) as reader:
            assert reader.constant_rate
            assert (reader.num_frames, reader.fps) == (spec.num_frames, 8.0)
            assert reader.duration == spec.duration
            frames = reader.frames(range(reader.num_frames))
        # What was drawn survives the encoder, at the very frames where an event starts and ends.
        assert np.abs(frames.astype(int) - render(spec)).mean() < 12
        for event in spec.events:
            seen = np.flatnonzero(shows(frames, event.color, slack=60)) / spec.fps
            assert (seen[0], seen[-1] + 1 / spec.fps) == (event.start, event.end)
        with av.open(str(path)) as container:
            comment = json.loads(container.metadata["comment"])
        assert SyntheticVideo.from_dict(comment) == spec


def test_most_events_are_in_sampled_frames(tmp_path):
    for spec in write_videos(tmp_path, 6, seed=1, workers=1):
        sample = sample_video(tmp_path / spec.file_name, 16)
        for event in spec.events:
            inside = [event.start <= time < event.end for time in sample.times]
            assert sum(inside) >= 1
            found = shows(sample.frames, event.color)
            assert (found == inside).mean() >= 15 / 16


def test_files_are_the_same_for_any_number_of_workers(tmp_path):
    one = write_videos(tmp_path / "one", 9, seed=7, workers=1)
    two = write_videos(tmp_path / "two", 9, seed=7, workers=2)
    assert one == two
    for spec in one:
        path = tmp_path / "one" / spec.file_name
        assert path.read_bytes() == (tmp_path / "two" / spec.file_name).read_bytes()


@pytest.fixture
def old_cpu(monkeypatch):
    """Encode as a CPU without vector instructions does, from here on."""
    library = next(
        line.split(maxsplit=5)[-1].strip()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libavutil" in line
    )
    use = ctypes.CDLL(library).av_force_cpu_flags

    def start():
        monkeypatch.setattr(encoding, "X264_PARAMS", encoding.X264_PARAMS + ":asm=0")
        use(0)

    yield start
    use(-1)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="finds a library as Linux does")
def test_files_are_the_same_on_every_cpu(tmp_path, old_cpu):
    """Left to choose by CPU, x264 also writes other bytes in about one call of a hundred."""
    specs = write_videos(tmp_path / "here", 4, seed=7, workers=1)
    old_cpu()
    write_videos(tmp_path / "there", 4, seed=7, workers=1)
    for spec in specs:
        here, there = (tmp_path / name / spec.file_name for name in ("here", "there"))
        assert here.read_bytes() == there.read_bytes()


def test_an_interrupted_call_can_be_repeated(tmp_path):
    specs = write_videos(tmp_path, 4, seed=0, workers=1)
    kept, cut, stale, gone = [tmp_path / spec.file_name for spec in specs]
    contents = [path.read_bytes() for path in (kept, cut, stale, gone)]
    os.utime(kept, (1, 1))
    cut.write_bytes(contents[1][:5000])
    stale.write_bytes(contents[0])
    gone.unlink()
    assert write_videos(tmp_path, 4, seed=0, workers=1) == specs
    assert [path.read_bytes() for path in (kept, cut, stale, gone)] == contents
    assert kept.stat().st_mtime == 1, "a complete file must be kept"


def test_sets_share_no_video(tmp_path):
    first = {make_video(0 * STRIDE + i).name for i in range(50)}
    second = {make_video(1 * STRIDE + i).name for i in range(50)}
    assert not first & second
    with pytest.raises(ValueError, match="count -1 is not between"):
        write_videos(tmp_path, -1)


def test_global_random_state_is_left_alone(tmp_path):
    random.seed(0)
    np.random.seed(0)
    expected = random.Random(0).random(), np.random.RandomState(0).rand()
    write_video(make_video(11), tmp_path)
    assert (random.random(), np.random.rand()) == expected


def test_charades_formats():
    specs = [make_video(seed) for seed in range(20)]
    items = synthetic_queries(specs)
    database = synthetic_truth(specs)["database"]
    assert len(items) == sum(len(spec.events) for spec in specs)
    assert len({(item["video"], item["query"]) for item in items}) == len(items)
    for item in items:
        assert set(item) == {"video", "qid", "query", "duration", "relevant_windows", "objects"}
        assert item["query"].startswith("the ")
        assert item["query"].endswith(" is visible.")
        entry = database[item["video"]]
        assert entry["subset"] == "Test"
        assert entry["duration"] == item["duration"]
        (match,) = [a for a in entry["annotations"] if a["label"] == item["query"]]
        assert [match["segment"]] == item["relevant_windows"]
        assert match["segment(frames)"] == [round(8 * time) for time in match["segment"]]
    json.dumps(items)
    json.dumps(database)
