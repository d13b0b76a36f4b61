"""Events over time as one inline SVG: for notebooks, reports and the demo's page.

The picture is self-contained (no script, no style sheet, no link), every word in it is escaped, and
each event is a group with ``data-start`` and ``data-end`` in seconds, so that a page can make it
clickable. Times stand at percentages of the width and everything else is in pixels, so that it is
read and touched as well on a telephone as on a wide screen. Colours follow the text colour around.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from distime.processing.answers import Event

START, END, INTERVAL = "#0072b2", "#d55e00", "#6a4c93"

# Pixels, from the top of the picture: the legend; of each event its times, its words where it has
# some, its curves and its bar; the axis.
_LEGEND, _TIMES, _WORDS, _CURVE, _BAR, _GAP, _AXIS = 24, 24, 20, 48, 14, 10, 26
_BOX = 1000  # units that the curves' box is wide; it is stretched to the picture's width


def timeline_svg(events: Sequence[Event], duration: float) -> str:
    """Draw a legend, and for each event its words, both boundary distributions and its interval.

    Args:
        events: with times in seconds.
        duration: the end of the video, in seconds on the clock of the events.

    Returns:
        an ``<svg>`` element, as wide as what it stands in.

    Raises:
        ValueError: the duration is not positive.
    """
    if not duration > 0:
        raise ValueError(f"a video of {duration} seconds has no timeline")
    top, parts = 0, []
    if any(event.distribution is not None for event in events):
        parts.append(_legend())
        top = _LEGEND
    for event in events:
        row, height = _row(event, top, duration)
        parts.append(row)
        top += height
    parts.append(_axis(top, duration))
    return (
        f'<svg class="distime-timeline" width="100%" height="{top + _AXIS}" role="img" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="15" '
        f'fill="currentColor"><title>{len(events)} events in {duration:.1f} s</title>'
        + "".join(parts)
        + "</svg>"
    )


def _percent(seconds: float, duration: float) -> float:
    """Where a time stands between the left and the right edge, cut to the video."""
    return round(100 * min(max(seconds, 0.0), duration) / duration, 2)


def _legend() -> str:
    entries = ((0, START, "start"), (64, END, "end"), (120, INTERVAL, "answer"))
    return "".join(
        f'<path d="M{x} 8h12" stroke="{color}" stroke-width="8"/>'
        f'<text x="{x + 18}" y="13" font-size="13">{name}</text>'
        for x, color, name in entries
    )


def _row(event: Event, top: int, duration: float) -> tuple[str, int]:
    """An event's group, and how high it is."""
    times = f"{event.start:.1f} – {event.end:.1f} s"
    if math.isfinite(event.confidence):
        times += f" · {event.confidence:.0%} sure"
    words = event.text if re.search(r"\w", event.text) else ""
    curves = top + _TIMES + (_WORDS if words else 0)
    bar = curves + (_CURVE if event.distribution is not None else 0)
    height = bar + _BAR + _GAP - top
    title = f"{times} · {words}" if words else times
    # The invisible rectangle makes the whole row answer to a click.
    parts = [
        f'<g class="event" data-start="{event.start:.3f}" data-end="{event.end:.3f}">'
        f"<title>{escape(title)}</title>"
        f'<rect x="0" y="{top}" width="100%" height="{height}" fill="transparent"/>'
        f'<text x="0" y="{top + 17}">{escape(times)}</text>'
    ]
    if words:
        words = textwrap.shorten(words, 200, placeholder=" …")
        # What is too long for the width is cut by a picture in the picture.
        parts.append(
            f'<svg y="{top + _TIMES}" width="100%" height="{_WORDS}">'
            f'<text x="0" y="14" font-size="14">{escape(words)}</text></svg>'
        )
    if event.distribution is not None:
        parts.append(_curves(event, curves, duration))
    low, high = (_percent(time, duration) for time in sorted((event.start, event.end)))
    parts.append(
        f'<rect x="{low}%" y="{bar + 1}" width="{max(high - low, 0.3):.2f}%" '
        f'height="{_BAR}" rx="2" fill="{INTERVAL}"/></g>'
    )
    return "".join(parts), height


def _curves(event: Event, top: int, duration: float) -> str:
    """Both distributions, the highest bin as high as there is room."""
    distribution = np.asarray(event.distribution, dtype=float)
    heights = distribution / max(distribution.max(), 1e-12) * (_CURVE - 2)
    first = event.origin / duration * _BOX
    places = np.linspace(first, _BOX, distribution.shape[1])
    parts = [
        f'<svg y="{top}" width="100%" height="{_CURVE}" viewBox="0 0 {_BOX} {_CURVE}" '
        'preserveAspectRatio="none">'
    ]
    for curve, color in zip(heights, (START, END), strict=True):
        points = " ".join(f"{x:.1f},{_CURVE - h:.1f}" for x, h in zip(places, curve, strict=True))
        parts.append(
            f'<polygon points="{first:.0f},{_CURVE} {points} {_BOX},{_CURVE}" fill="{color}" '
            'fill-opacity="0.25"/>'
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5" '
            'vector-effect="non-scaling-stroke"/>'
        )
    return "".join(parts) + "</svg>"


def _axis(top: int, duration: float) -> str:
    parts = [f'<rect y="{top}" width="100%" height="1" fill="currentColor" fill-opacity="0.5"/>']
    step = _tick(duration)
    for number in range(int(duration / step + 1e-9) + 1):
        second = number * step
        place = _percent(second, duration)
        anchor = "start" if place < 4 else "end" if place > 96 else "middle"
        parts.append(
            f'<rect x="{place}%" y="{top}" width="1" height="4" fill="currentColor"/>'
            f'<text x="{place}%" y="{top + 18}" font-size="13" text-anchor="{anchor}">'
            f"{second:g}{' s' if number == 0 else ''}</text>"
        )
    return "".join(parts)


def _tick(duration: float) -> float:
    """A round number of seconds that cuts the duration into at most six, for a narrow screen."""
    power = 10.0 ** math.floor(math.log10(duration / 6))
    minute = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
    steps = [power * factor for factor in (1, 2, 5, 10)] if duration < 120 else minute
    return next((step for step in steps if duration / step <= 6), duration / 6)
