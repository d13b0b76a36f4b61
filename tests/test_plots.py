"""Pictures: what they show stands where the numbers say."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from distime.processing.answers import Event
from distime.show.plots import PREDICTED, START, TRUE, plot_events, plot_grounding

DURATION = 20.0


def peaked(start, end, bins=33):
    """An event whose distributions have all their mass on the nearest bins."""
    distribution = np.zeros((2, bins))
    for row, time in zip(distribution, (start, end), strict=True):
        row[round(time / DURATION * (bins - 1))] = 1
    return Event(start, end, 1.0, distribution, "a shape is visible")


def video(count=16, height=40, width=64):
    frames = np.full((count, height, width, 3), 200, np.uint8)
    times = ((np.arange(count) + 0.5) / count * DURATION).tolist()
    return {"frames": frames, "frame_times": times, "duration": DURATION}


def has_color(path, color, tolerance=3):
    """Boolean (height, width): which pixels have this colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return (np.abs(pixels - np.array(to_rgb(color)) * 255) <= tolerance).all(-1)


def bar_seconds(path, color):
    """(start, end) of the longest horizontal run of a colour, measured on the picture."""
    mask = has_color(path, color)
    row = mask[mask.sum(1).argmax()]
    columns = np.flatnonzero(row)
    columns = columns[columns > 126]  # right of the axis; left of it are words
    left, right = 1.05 * 120, (12 - 0.3) * 120  # the axis, in pixels
    return tuple((columns[[0, -1]] + [0, 1] - left) / (right - left) * DURATION)


def test_grounding_draws_intervals_at_their_times(tmp_path):
    path = tmp_path / "folder" / "picture.png"
    returned = plot_grounding(
        path, **video(), query="a shape", events=[peaked(5, 12)], truth=[(6, 15)]
    )
    assert returned == path
    assert bar_seconds(path, PREDICTED) == pytest.approx((5, 12), abs=0.1)
    assert bar_seconds(path, TRUE) == pytest.approx((6, 15), abs=0.1)
    assert has_color(path, START).sum() > 100
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_grounding_without_truth_or_answer(tmp_path):
    path = plot_grounding(tmp_path / "a.png", **video(), query="a shape", events=[])
    assert not has_color(path, TRUE).any()
    assert not has_color(path, START).any()


def test_event_without_distribution_is_a_bar(tmp_path):
    path = plot_grounding(tmp_path / "a.png", **video(), query="q", events=[Event(2, 9)])
    assert bar_seconds(path, PREDICTED) == pytest.approx((2, 9), abs=0.1)
    assert not has_color(path, START).any()


def test_reversed_answer_is_hollow(tmp_path):
    path = plot_grounding(tmp_path / "a.png", **video(), query="q", events=[peaked(12, 5)])
    filled = plot_grounding(tmp_path / "b.png", **video(), query="q", events=[peaked(5, 12)])
    assert has_color(path, PREDICTED).sum() < has_color(filled, PREDICTED).sum() / 2


def test_events_have_a_row_each(tmp_path):
    few = plot_events(tmp_path / "a.png", **video(), title="v", events=[peaked(2, 4)])
    many = plot_events(
        tmp_path / "b.png",
        **video(),
        title="v",
        events=[peaked(2, 4), peaked(6, 9)],
        truth=[Event(1, 5)],
    )
    assert Image.open(many).height > Image.open(few).height
    assert bar_seconds(few, PREDICTED) == pytest.approx((2, 4), abs=0.1)
    assert bar_seconds(many, TRUE) == pytest.approx((1, 5), abs=0.1)
    empty = plot_events(tmp_path / "c.png", **video(), title="v", events=[])
    assert not has_color(empty, PREDICTED).any()


def test_words_are_no_formulas(tmp_path):
    events = [Event(1, 2, text="costs $5 {and} $6_7")]
    plot_grounding(tmp_path / "a.png", **video(), query="$x_ and \\frac", events=events)
    plot_events(tmp_path / "b.png", **video(), title="$5 a_b $", events=events)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_any_number_of_frames(tmp_path, count):
    path = plot_grounding(tmp_path / "a.png", **video(count), query="q", events=[peaked(0, 20)])
    assert bar_seconds(path, PREDICTED) == pytest.approx((0, 20), abs=0.1)


def test_bad_input_is_refused_and_leaves_no_file(tmp_path):
    wrong = video() | {"frame_times": [0.0]}
    with pytest.raises(ValueError, match="16 frames and 1 frame times"):
        plot_grounding(tmp_path / "a.png", **wrong, query="q", events=[])
    with pytest.raises(ValueError, match="0 seconds"):
        plot_events(tmp_path / "a.png", **video() | {"duration": 0}, title="q", events=[])
    assert not list(tmp_path.iterdir())


def test_needs_neither_pyplot_nor_torch():
    code = (
        "import sys, distime.show.plots\n"
        "sys.exit(any(name in sys.modules for name in ('matplotlib.pyplot', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
