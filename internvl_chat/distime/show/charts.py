"""Bar charts as inline SVG, in the colour of the text around them; nothing is fetched for them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 720, 240
_LEFT, _TOP, _BOTTOM = 48, 22, 46
_FILL = "#6a4c93"


def bar_chart(
    values: Sequence[float],
    labels: Sequence[str],
    *,
    title: str,
    axis: str,
    notes: Sequence[str] = (),
    top: float | None = None,
    gap: float = 0.12,
) -> str:
    """Draw bars side by side.

    Args:
        values: heights, none negative.
        labels: what stands below each bar; empty for nothing.
        title: read out by screen readers.
        axis: what stands below the labels.
        notes: what stands above each bar, by default nothing.
        top: height of the axis, by default the highest bar.
        gap: between bars, as a fraction of a bar's place.

    Returns:
        an `<svg>` element.
    """
    top = top or max(values, default=0) or 1
    step = (_WIDTH - _LEFT - 8) / max(len(values), 1)
    foot, room = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" '
        f'fill="currentColor"><title>{escape(title)}</title>'
    ]
    for share in (0, 0.5, 1):
        y = foot - share * room
        parts.append(
            f'<path d="M{_LEFT} {y}H{_WIDTH - 8}" stroke="currentColor" stroke-opacity="0.2"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{share * top:g}</text>'
        )
    notes = notes or [""] * len(values)
    for number, (value, label, note) in enumerate(zip(values, labels, notes, strict=True)):
        x, height = _LEFT + number * step, min(value / top, 1) * room
        middle = x + step / 2
        parts.append(
            f'<rect x="{x + gap * step / 2:.1f}" y="{foot - height:.1f}" '
            f'width="{step * (1 - gap):.1f}" height="{height:.1f}" fill="{_FILL}"/>'
            f'<text x="{middle:.1f}" y="{foot + 16}" text-anchor="middle">{escape(label)}</text>'
            f'<text x="{middle:.1f}" y="{foot - height - 5:.1f}" text-anchor="middle">'
            f"{escape(note)}</text>"
        )
    parts.append(
        f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(axis)}</text></svg>"
    )
    return "".join(parts)
