"""Moment retrieval with one window for each query: R1 and mIoU, decided without rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


def hull_iou(a: Interval, b: Interval) -> float:
    """Overlap over the length of the hull, in [0, 1]; 0 where that has no length.

    Where both intervals run forwards and overlap it is the IoU, rounded another way; scorers that
    use it decide ties by it.
    """
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull > 0 else 0.0


def recall_table(
    ious: Sequence[float], thresholds: Sequence[float] = THRESHOLDS, *, above: bool = False
) -> dict[str, float]:
    """Return ``R1@t``, the share of IoUs that reach (``above``: exceed) t, and ``mIoU``.

    In percent; compared as float64, as scorers do that have no exact comparison.
    """
    values = np.asarray(ious, dtype=np.float64)
    hits = {t: (values > t if above else values >= t).mean() for t in thresholds}
    table = {f"R1@{t}": 100 * float(share) for t, share in hits.items()}
    return table | {"mIoU": 100 * float(values.mean())}
