"""Pictures of an answer: the frames, the boundary distributions over time, and the intervals.

:func:`plot_grounding` draws the answer to one query, :func:`plot_events` the events of a dense
caption, one below the other. Both write a PNG file; neither touches matplotlib's global state, so
they can be called from any thread.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distime.files import written_whole
from distime.metrics.intervals import Interval, iou
from distime.processing.answers import Event

START, END = "#0072b2", "#d55e00"  # told apart also by the colour-blind
PREDICTED, TRUE = "#6a4c93", "#2a9d5c"
_INK, _FAINT = "#22262b", "#9aa1a9"

_WIDTH, _DPI = 12.0, 120
_LEFT, _RIGHT = 1.05, 0.3  # inches beside the axes
_STRIP = 0.96  # inches, the tallest that the strip of frames becomes
_MAX_FRAMES = 16


def plot_grounding(
    path: str | os.PathLike,
    *,
    frames: np.ndarray,
    frame_times: Sequence[float],
    duration: float,
    query: str,
    events: Sequence[Event],
    truth: Sequence[Interval] = (),
) -> Path:
    """Draw the answer to one query: frames, distributions of start and end, intervals.

    Args:
        path: of the PNG file; it appears only when it is complete.
        frames: uint8 RGB ``(n, H, W, 3)``; at most 16 of them are shown.
        frame_times: ``n`` times in seconds.
        duration: the end of the video, in seconds on the clock of the events and frames.
        query: written above the picture.
        events: what the model answered, in seconds; none is an answer too. An event without a
            distribution has a bar alone.
        truth: the true intervals in seconds, if known. The title then gives the temporal IoU of
            the first event with the true interval that fits it best.

    Returns:
        the path.

    Raises:
        ValueError: the numbers of frames and times differ, or the duration is not positive.
    """
    rows = [("predicted", PREDICTED, [(event.start, event.end) for event in events])]
    rows += [("true", TRUE, list(truth))] if truth else []
    canvas = _Canvas(_shown(query), frames, frame_times, duration, below=2.0 + 0.3 * len(rows))
    canvas.title(_verdict(events, truth))
    canvas.strip(frames, frame_times)

    curves = canvas.axes(1.75)
    curves.set_yticks([])
    curves.tick_params(labelbottom=False)
    canvas.label(curves, "probability\nof start, end")
    if any(event.distribution is not None for event in events):
        for number, event in enumerate(events):
            _draw_curves(curves, event, duration, alpha=1.0 if number == 0 else 0.4)
        curves.set_ylim(0, curves.get_ylim()[1] * 1.3)  # room for the words
        _write_times(curves, events[0], duration)
    else:
        curves.set_ylim(0, 1)
        _centre(curves, "no distribution" if events else "the answer names no time")

    bars = canvas.axes(0.3 * len(rows), gap=0.05)
    bars.set_ylim(len(rows) - 0.45, -0.55)
    bars.set_yticks([])
    for row, (name, color, intervals) in enumerate(rows):
        _name_row(bars, row, name, color)
        for start, end in intervals:
            _bar(bars, start, end, row, color)
            for axes in (curves, canvas.frames_axes):
                axes.axvspan(min(start, end), max(start, end), color=color, alpha=0.09, lw=0)
    _time_axis(bars)
    return canvas.save(path)


def plot_events(
    path: str | os.PathLike,
    *,
    frames: np.ndarray,
    frame_times: Sequence[float],
    duration: float,
    title: str,
    events: Sequence[Event],
    truth: Sequence[Event] = (),
) -> Path:
    """Draw the events of a dense caption, a row for each with its distributions and its words.

    Args:
        path: of the PNG file; it appears only when it is complete.
        frames: uint8 RGB ``(n, H, W, 3)``; at most 16 of them are shown.
        frame_times: ``n`` times in seconds.
        duration: the end of the video, in seconds on the clock of the events and frames.
        title: written above the picture.
        events: what the model answered, in seconds, drawn in the given order.
        truth: the true events, drawn below them.

    Returns:
        the path.

    Raises:
        ValueError: the numbers of frames and times differ, or the duration is not positive.
    """
    groups = [("predicted", PREDICTED, events), ("true", TRUE, truth)]
    # A row is as many units high as it has lines: words, and a bar with its curves above.
    heights = [1.0 if event.distribution is not None else 0.66 for event in (*events, *truth)]
    total = sum(heights) or 1.0
    canvas = _Canvas(_shown(title), frames, frame_times, duration, below=0.68 * total)
    canvas.title("" if events else "no events")
    if any(event.distribution is not None for event in events):
        canvas.legend()
    canvas.strip(frames, frame_times)

    axes = canvas.axes(0.68 * total)
    axes.set_ylim(total, 0)
    axes.set_yticks([])
    foot, remaining = 0.0, iter(heights)
    for name, color, group in groups:
        top = foot
        for event in group:
            if foot:
                axes.axhline(foot, color=_FAINT, lw=0.5, alpha=0.6)
            foot += next(remaining)
            _draw_curves(axes, event, duration, foot - 0.22, height=0.42)
            _bar(axes, event.start, event.end, foot - 0.14, color, height=0.15)
            _describe(axes, event, foot - (0.8 if event.distribution is not None else 0.44))
        if group:
            _name_row(axes, (top + foot) / 2, name, color)
    _time_axis(axes)
    return canvas.save(path)


class _Canvas:
    """A figure that is filled from top to bottom; sizes are inches, x is seconds in all axes."""

    def __init__(
        self,
        heading: str,
        frames: np.ndarray,
        frame_times: Sequence[float],
        duration: float,
        below: float,
    ):
        if len(frames) != len(frame_times) or not len(frames):
            raise ValueError(f"{len(frames)} frames and {len(frame_times)} frame times")
        if not duration > 0:
            raise ValueError(f"a video of {duration} seconds cannot be drawn")
        self.duration = duration
        self.heading = heading
        # Long videos show evenly chosen frames: more than these are too small to see.
        count = min(len(frames), _MAX_FRAMES)
        self.shown = np.linspace(0, len(frames) - 1, count).round().astype(int)
        slot = (_WIDTH - _LEFT - _RIGHT) / count
        aspect = frames.shape[1] / frames.shape[2]
        self.strip_height = min(_STRIP, 0.96 * slot * aspect)
        height = 0.72 + self.strip_height + 0.16 + below + 0.5
        self.figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.height, self.top = height, height - 0.72
        self.frames_axes: Axes

    def title(self, verdict: str) -> None:
        """Write the heading on the left and the verdict on the right."""
        y = 1 - 0.34 / self.height
        self.figure.text(
            _LEFT / _WIDTH, y, self.heading, fontsize=13, weight="bold", color=_INK, va="center",
            parse_math=False,
        )  # fmt: skip
        self.figure.text(
            1 - _RIGHT / _WIDTH, y, verdict, fontsize=12, color=_INK, va="center", ha="right"
        )

    def legend(self) -> None:
        """Say on the right which colour is the start and which the end."""
        for name, color, inches in (("start", START, 0.5), ("end", END, 0.0)):
            self.figure.text(
                1 - (_RIGHT + inches) / _WIDTH, 1 - 0.34 / self.height, name, color=color,
                fontsize=11, weight="bold", va="center", ha="right",
            )  # fmt: skip

    def axes(self, height: float, gap: float = 0.0) -> Axes:
        """Add axes over time below what is there."""
        self.top -= gap + height
        rectangle = (
            _LEFT / _WIDTH,
            self.top / self.height,
            1 - (_LEFT + _RIGHT) / _WIDTH,
            height / self.height,
        )
        axes = self.figure.add_axes(rectangle)
        axes.set_xlim(0, self.duration)
        axes.tick_params(colors=_INK, labelsize=9)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_FAINT)
        return axes

    def strip(self, frames: np.ndarray, frame_times: Sequence[float]) -> None:
        """Draw frames side by side, each tied to its time on the axis below."""
        axes = self.frames_axes = self.axes(self.strip_height + 0.16)
        axes.set_ylim(0, self.strip_height + 0.16)
        axes.set_axis_off()
        slot = self.duration / len(self.shown)
        second = (_WIDTH - _LEFT - _RIGHT) / self.duration  # inches
        half = self.strip_height * frames.shape[2] / frames.shape[1] / second / 2
        for place, index in enumerate(self.shown):
            middle = slot * (place + 0.5)
            axes.imshow(
                frames[index],
                extent=(middle - half, middle + half, 0.16, self.strip_height + 0.16),
                aspect="auto",
                interpolation="antialiased",
                zorder=2,
            )
            axes.plot([middle, frame_times[index]], [0.16, 0], color=_FAINT, lw=0.8, clip_on=False)
        axes.set_xlim(0, self.duration)
        axes.set_ylim(0, self.strip_height + 0.16)

    def label(self, axes: Axes, text: str) -> None:
        """Name axes on their left."""
        axes.text(
            -0.012, 0.5, text, color=_INK, fontsize=9, ha="right", va="center",
            transform=axes.transAxes,
        )  # fmt: skip

    def save(self, path: str | os.PathLike) -> Path:
        """Write the PNG file under its name when it is complete."""
        path = Path(path)
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        with written_whole(path) as partial:
            partial.write_bytes(buffer.getvalue())
        return path


def _draw_curves(
    axes: Axes,
    event: Event,
    duration: float,
    foot: float = 0.0,
    *,
    height: float | None = None,
    alpha: float = 1.0,
) -> None:
    """Draw the distributions of start and end as curves over time, if the event has them.

    With a `height` the higher peak reaches that far above `foot` on an axis that points down;
    without one the values are probabilities on an axis that points up.
    """
    if event.distribution is None:
        return
    values = np.asarray(event.distribution, dtype=float)
    seconds = np.linspace(event.origin, duration, values.shape[1])
    if height is not None:
        values = foot - values / values.max() * height
    for curve, color in zip(values, (START, END), strict=True):
        axes.fill_between(seconds, foot, curve, color=color, alpha=0.25 * alpha, lw=0)
        axes.plot(seconds, curve, color=color, lw=1.5, alpha=alpha)


def _write_times(axes: Axes, event: Event, duration: float) -> None:
    """Mark and write the two expectations, leaning away from each other where there is room."""
    near = 0.1 * duration  # about the width of the words
    sides = []
    for time, other in ((event.start, event.end), (event.end, event.start)):
        left = time < other or (time == other and bool(sides))
        sides.append((left and time > near) or time > duration - near)
    crowded = sides[0] == sides[1] and abs(event.start - event.end) < near
    for row, (name, time, color, left) in enumerate(
        zip(("start", "end"), (event.start, event.end), (START, END), sides, strict=True)
    ):
        axes.axvline(time, color=color, lw=1.2, ls=(0, (4, 3)))
        axes.annotate(
            f"{name} {time:.1f} s", (time, 1), xycoords=("data", "axes fraction"),
            xytext=(-4 if left else 4, -4 - 14 * (crowded and row)), textcoords="offset points",
            ha="right" if left else "left", va="top", fontsize=10, color=color, weight="bold",
        )  # fmt: skip


def _describe(axes: Axes, event: Event, row: float) -> None:
    """Write times and words of an event above its bar, where they stay inside the picture."""
    low, high = sorted((event.start, event.end))
    right = low + high > 1.2 * axes.get_xlim()[1]
    axes.text(
        high if right else low, row, f"{event.start:.1f} – {event.end:.1f} s  {_shown(event.text)}",
        ha="right" if right else "left", va="center", fontsize=9, color=_INK, parse_math=False,
    )  # fmt: skip


def _name_row(axes: Axes, row: float, name: str, color: str) -> None:
    axes.text(
        -0.012, row, name, color=color, fontsize=10, ha="right", va="center", weight="bold",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip


def _bar(
    axes: Axes, start: float, end: float, row: float, color: str, height: float = 0.56
) -> None:
    # A reversed answer is drawn hollow: it covers nothing. A point stays visible by its edge.
    is_reversed = end < start
    axes.barh(
        row, abs(end - start), left=min(start, end), height=height, color=color,
        fill=not is_reversed, edgecolor=color, lw=1.2, zorder=3,
    )  # fmt: skip


def _time_axis(axes: Axes) -> None:
    axes.set_xlabel("seconds", fontsize=10, color=_INK)


def _centre(axes: Axes, text: str) -> None:
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=12,
        color=_FAINT,
    )  # fmt: skip


def _verdict(events: Sequence[Event], truth: Sequence[Interval]) -> str:
    if not events:
        return "no answer"
    said = [f"{events[0].confidence:.0%} sure"] if np.isfinite(events[0].confidence) else []
    if truth:
        best = max(iou((events[0].start, events[0].end), interval) for interval in truth)
        said.insert(0, f"IoU {best:.2f}")
    return "   ".join(said)


def _shown(text: str, width: int = 68) -> str:
    """One line of at most `width` characters."""
    return textwrap.shorten(text, width, placeholder=" …")
