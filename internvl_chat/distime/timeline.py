"""Events over time as one inline SVG: for notebooks and the demo's page.

The picture is self-contained (no script, no style sheet, no link), every word in it is escaped, and
each event is a group with ``data-start`` and ``data-end`` in seconds, so that a page can make it
clickable. Colours follow the text colour of the page around it.
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

_WIDTH, _MARGIN = 1000, 12
_ROW, _CURVE, _BAR = 74, 34, 11  # of an event: its height, its curves' and its bar's
_AXIS = 30


def timeline_svg(events: Sequence[Event], duration: float) -> str:
    """Draw a row for each event: its words, both boundary distributions as curves, its interval.

    Args:
        events: with times in seconds.
        duration: of the video, in seconds.

    Returns:
        an ``<svg>`` element, as wide as what it stands in.

    Raises:
        ValueError: the duration is not positive.
    """
    if not duration > 0:
        raise ValueError(f"a video of {duration} seconds has no timeline")

    def x(seconds: float) -> float:
        inside = min(max(seconds, 0.0), duration)
        return round(_MARGIN + inside / duration * (_WIDTH - 2 * _MARGIN), 1)

    height = _ROW * len(events) + _AXIS
    parts = [
        f'<svg class="distime-timeline" viewBox="0 0 {_WIDTH} {height}" width="100%" role="img" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="18" '
        f'fill="currentColor"><title>{len(events)} events in {duration:.1f} s</title>'
    ]
    for row, event in enumerate(events):
        parts.append(_row(event, row * _ROW, x, duration))
    parts.append(_axis(height - _AXIS + 4, x, duration))
    return "".join(parts) + "</svg>"


def _row(event: Event, top: float, x, duration: float) -> str:
    low, high = sorted((event.start, event.end))
    foot = top + _ROW - _BAR - 6
    words = f"{event.start:.1f} – {event.end:.1f} s"
    if math.isfinite(event.confidence):
        words += f" · {event.confidence:.0%} sure"
    if re.search(r"\w", event.text):
        words += f" · {textwrap.shorten(event.text, 90, placeholder=' …')}"
    right = low + high > 1.1 * duration
    # The invisible rectangle makes the whole row answer to a click.
    parts = [
        f'<g class="event" data-start="{event.start:.3f}" data-end="{event.end:.3f}">'
        f"<title>{escape(words)}</title>"
        f'<rect x="0" y="{top}" width="{_WIDTH}" height="{_ROW}" fill="transparent"/>'
        f'<text x="{x(high if right else low)}" y="{top + 17}"'
        f' text-anchor="{"end" if right else "start"}">{escape(words)}</text>'
    ]
    if event.distribution is not None:
        values = np.asarray(event.distribution, dtype=float)
        heights = values / max(values.max(), 1e-12) * _CURVE
        seconds = np.linspace(0, duration, values.shape[1])
        for curve, color in zip(heights, (START, END), strict=True):
            points = " ".join(
                f"{x(second)},{foot - h:.1f}" for second, h in zip(seconds, curve, strict=True)
            )
            ends = f"{x(0)},{foot} {points} {x(duration)},{foot}"
            parts.append(
                f'<polygon points="{ends}" fill="{color}" fill-opacity="0.25"/>'
                f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
            )
    width = max(x(high) - x(low), 1.5)
    parts.append(
        f'<rect x="{x(low)}" y="{foot + 1}" width="{width:.1f}" height="{_BAR}" rx="2" '
        f'fill="{INTERVAL}"/></g>'
    )
    return "".join(parts)


def _axis(top: float, x, duration: float) -> str:
    parts = [f'<path d="M{x(0)} {top}H{x(duration)}" stroke="currentColor" stroke-opacity="0.5"/>']
    step = _tick(duration)
    for number in range(int(duration / step + 1e-9) + 1):
        second = number * step
        parts.append(
            f'<path d="M{x(second)} {top}v4" stroke="currentColor" stroke-opacity="0.5"/>'
            f'<text x="{x(second)}" y="{top + 20}" font-size="15" text-anchor="middle">'
            f"{second:g}{' s' if number == 0 else ''}</text>"
        )
    return "".join(parts)


def _tick(duration: float) -> float:
    """A round number of seconds that cuts the duration into at most ten."""
    power = 10.0 ** math.floor(math.log10(duration / 10))
    minute = (15, 30, 60, 120, 300, 600, 1800, 3600)
    steps = [power * factor for factor in (1, 2, 5, 10)] if duration < 120 else minute
    return next((step for step in steps if duration / step <= 10), duration / 10)
