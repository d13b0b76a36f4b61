"""Moment retrieval with one window for each query: R1 and mIoU, decided without rounding."""

from __future__ import annotations

from collections.abc import Sequence

from distime.metrics.intervals import Interval, iou, reaches

THRESHOLDS = (0.3, 0.5, 0.7)


def retrieval(
    pairs: Sequence[tuple[Interval | None, Interval]], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """Return ``R1@t``, the share of pairs with IoU >= t, and ``mIoU``, in percent.

    Args:
        pairs: predicted window (None: no answer, IoU 0) and annotated one, in one unit.
        thresholds: of R1.
    """
    answered = [(predicted, window) for predicted, window in pairs if predicted is not None]
    metrics = {
        f"R1@{t}": 100 * sum(reaches(*pair, t) for pair in answered) / len(pairs)
        for t in thresholds
    }
    return metrics | {"mIoU": 100 * sum(iou(*pair) for pair in answered) / len(pairs)}
