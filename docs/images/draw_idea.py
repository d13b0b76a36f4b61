"""Draw docs/images/idea.png: how an answer comes to its times, with numbers of a real answer.

    python docs/images/draw_idea.py quickstart/checkpoints/ground

The checkpoint is what `make quickstart` trains; the video is one that it was not trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from distime.processing.answers import Event
from distime.show.plots import END, PREDICTED, START, TRUE
from distime.toy.synthetic import make_video, render

HELD_OUT, EVENT = 1_000_014, 2  # a video of the quickstart's evaluation, and what is asked about
INK, FAINT, PAPER = "#22262b", "#9aa1a9", "#f3f1f7"
WIDTH, HEIGHT = 12.0, 6.7  # inches, and the unit of all coordinates
LEFT, RIGHT = 0.35, 8.2  # of everything that lies over the time of the video
SIDE = 8.5  # left edge of the column of words


def draw(
    path: Path,
    frames: np.ndarray,
    times: Sequence[float],
    duration: float,
    query: str,
    event: Event,
    truth: tuple[float, float],
) -> None:
    """Draw the picture.

    Args:
        path: of the PNG file.
        frames: uint8 RGB `(n, H, W, 3)`.
        times: of the frames, seconds.
        duration: of the video, seconds.
        query: what was asked about.
        event: the answer, seconds, with its distributions.
        truth: (start, end), seconds.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.set_axis_off()

    def x(seconds):
        return LEFT + seconds / duration * (RIGHT - LEFT)

    middles = LEFT + (np.arange(len(frames)) + 0.5) / len(frames) * (RIGHT - LEFT)
    side = 0.86 * (RIGHT - LEFT) / len(frames)
    for middle, frame, time in zip(middles, frames, times, strict=True):
        box = (middle - side / 2, middle + side / 2, 5.6, 5.6 + side)
        axes.imshow(frame, extent=box, aspect="auto", zorder=2)
        _chip(axes, middle, 5.3, f"{time:.0f} s", START, width=side)
        _arrow(axes, (middle, 5.12), (middle, 4.86))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    _words(axes, SIDE, 6.36, "frames, each with its time")
    _words(axes, SIDE, 6.08, "(time encoder, <FRAME_TIME_REF>)", color=FAINT)
    _words(axes, SIDE, 5.56, "When does this happen?")
    _words(axes, SIDE, 5.28, f"“{query}”", weight="bold")
    _arrow(axes, (SIDE + 1.4, 5.1), (SIDE + 1.4, 4.86))

    _box(axes, LEFT, 4.3, WIDTH - LEFT - 0.15, 0.54, PAPER)
    axes.text(WIDTH / 2, 4.57, "language model", ha="center", va="center", fontsize=14, color=INK)

    place = LEFT
    for word, width in (
        ("The", 0.5),
        ("event", 0.66),
        ("is", 0.36),
        ("depicted", 0.9),
        ("at", 0.4),
    ):
        _chip(axes, place + width / 2, 3.84, word, FAINT, width=width)
        _arrow(axes, (place + width / 2, 4.28), (place + width / 2, 4.02))
        place += width + 0.1
    token = place + 0.85
    _chip(axes, token, 3.84, "<TIME_STAMP>", PREDICTED, width=1.7, filled=True)
    _arrow(axes, (token, 4.28), (token, 4.02))
    _words(axes, token + 1.05, 3.84, "words, and one token for a time")

    # What a hidden state looks like; the numbers are not of this answer.
    cells = np.random.default_rng(0).uniform(0.15, 0.95, 20)
    for number, value in enumerate(cells):
        left = token - 0.85 + number * 0.085
        cell = Rectangle((left, 3.16), 0.085, 0.22, facecolor=PREDICTED, alpha=value, lw=0)
        axes.add_patch(cell)
    _arrow(axes, (token, 3.66), (token, 3.42))
    _words(axes, token + 1.05, 3.27, "the hidden state that predicted it")
    _arrow(axes, (token, 3.12), (token, 2.76))
    _words(axes, token + 0.12, 2.94, "time decoder", color=FAINT)

    foot, tall = 1.12, 1.35
    heights = event.distribution / event.distribution.max() * tall
    seconds = np.linspace(0, duration, heights.shape[1])
    for curve, color in zip(heights, (START, END), strict=True):
        axes.fill_between(
            [x(s) for s in seconds], foot, foot + curve, color=color, alpha=0.25, lw=0
        )
        axes.plot([x(s) for s in seconds], foot + curve, color=color, lw=1.6)
        axes.plot([x(s) for s in seconds], foot + curve, ".", color=color, ms=3.5)
    for value, color in ((event.start, START), (event.end, END)):
        axes.plot([x(value)] * 2, [0.72, foot + tall + 0.05], color=color, lw=1.3, ls=(0, (4, 3)))
    _words(axes, SIDE, 2.36, f"two distributions over {heights.shape[1]} moments,")
    _words(axes, SIDE, 2.06, "from the start of the video to its end:")
    for y, name, value, color in (
        (1.7, "start", event.start, START),
        (1.36, "end", event.end, END),
    ):
        _words(axes, SIDE, y, f"E[{name}] = Σ p·t = {value:.1f} s", color=color, weight="bold")

    axes.plot([LEFT, RIGHT], [foot, foot], color=FAINT, lw=0.8)
    rows = ((0.72, (event.start, event.end), PREDICTED), (0.46, truth, TRUE))
    for y, (start, end), color in rows:
        axes.add_patch(Rectangle((x(start), y - 0.09), x(end) - x(start), 0.18, color=color, lw=0))
    _words(axes, SIDE, 0.72, f"answer  {event.start:.1f} – {event.end:.1f} s", PREDICTED, "bold")
    _words(axes, SIDE, 0.46, f"truth  {truth[0]:.1f} – {truth[1]:.1f} s", TRUE, "bold")
    for second in range(0, int(duration) + 1, 5):
        axes.plot([x(second)] * 2, [0.3, 0.26], color=FAINT, lw=0.8)
        axes.text(x(second), 0.13, f"{second} s" if second == 0 else second, ha="center",
                  va="center", fontsize=9, color=INK)  # fmt: skip
    axes.plot([LEFT, RIGHT], [0.3, 0.3], color=FAINT, lw=0.8)

    # What is answered is also what the model reads next.
    back = WIDTH - 0.4
    axes.plot([SIDE + 2.1, back, back], [0.72, 0.72, 3.3], color=PREDICTED, lw=1.2, ls=(0, (4, 3)))
    _arrow(axes, (back, 3.2), (back, 4.28), PREDICTED, dashed=True)
    axes.text(back - 0.12, 3.3, "time encoder:\nthe next input", ha="right", va="center",
              fontsize=10, color=PREDICTED)  # fmt: skip
    figure.savefig(path)


def _box(axes: Axes, left: float, bottom: float, width: float, height: float, color: str) -> None:
    style = "round,pad=0,rounding_size=0.1"
    axes.add_patch(
        FancyBboxPatch((left, bottom), width, height, style, facecolor=color, edgecolor=FAINT, lw=1)
    )


def _chip(
    axes: Axes, middle: float, y: float, text: str, color: str, width: float, filled: bool = False
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (middle - width / 2, y - 0.15), width, 0.3, "round,pad=0,rounding_size=0.08",
            facecolor=color if filled else "white", edgecolor=color, lw=1.2,
        )
    )  # fmt: skip
    axes.text(middle, y - 0.01, text, ha="center", va="center", fontsize=10.5,
              color="white" if filled else INK)  # fmt: skip


def _arrow(axes: Axes, tail, head, color: str = FAINT, dashed: bool = False) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", head, tail, arrowprops=style | ({"ls": (0, (4, 3))} if dashed else {}))


def _words(
    axes: Axes, left: float, y: float, text: str, color: str = INK, weight: str = "normal"
) -> None:
    axes.text(
        left, y, text, va="center", fontsize=10.5, color=color, weight=weight, parse_math=False
    )


def main() -> None:
    """Ask the checkpoint and draw its answer."""
    from distime import DisTime
    from distime.processing.sampling import VideoSample

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("idea.png"))
    args = parser.parse_args()
    video = make_video(HELD_OUT)
    asked = video.events[EVENT]
    frames = render(video)
    count = 16
    indices = ((np.arange(count) + 0.5) / count * len(frames)).astype(int)
    times = [index / video.fps for index in indices]
    sample = VideoSample(frames[indices], times, video.duration, indices.tolist())
    event = DisTime.from_pretrained(args.checkpoint, device="cpu").ground(sample, asked.query)[0]
    draw(args.output, frames[indices[::2]], times[::2], video.duration, asked.query, event,
         (asked.start, asked.end))  # fmt: skip


if __name__ == "__main__":
    main()
