"""Arithmetic on similarity curves: one number per frame, the frames cutting a video evenly."""

from __future__ import annotations

import numpy as np


def best_run(curve: np.ndarray) -> tuple[int, int, float]:
    """Return the run of frames that stands out most.

    The level is half-way between the mean and the highest frame; the run is the one with the
    largest sum of what its frames have above the level, less what they lack.

    Args:
        curve: `(n,)` similarities.

    Returns:
        first frame, the one behind the last, and how much the run stands out: its mean less that
        of the rest, as a share of highest less lowest, 0 to 1. A flat curve is one run, which
        stands out by 0.
    """
    curve = np.asarray(curve, dtype=np.float64)
    spread = float(curve.max() - curve.min())
    if len(curve) == 1 or spread < 1e-9:
        return 0, len(curve), 0.0
    above = curve - (curve.max() + curve.mean()) / 2
    totals = np.concatenate([[0.0], above.cumsum()])
    lowest = np.minimum.accumulate(totals[:-1])
    end = int((totals[1:] - lowest).argmax()) + 1
    first = int(totals[:end].argmin())
    inside = np.zeros(len(curve), dtype=bool)
    inside[first:end] = True
    if inside.all():
        return 0, len(curve), 0.0
    contrast = (curve[inside].mean() - curve[~inside].mean()) / spread
    return first, end, float(min(max(contrast, 0.0), 1.0))


def stands_out(curve: np.ndarray, start: float, end: float) -> float:
    """Return the probability that a frame of an interval is more similar than one of the rest.

    Ties count half; 0.5 where there is no frame inside or no rest. It depends on no scale, so that
    values of different encoders mean the same.

    Args:
        curve: `(n,)` similarities of frames that cut the video into n equal parts.
        start, end: of the interval, normalised to the video's length.
    """
    curve = np.asarray(curve, dtype=np.float64)
    centres = (np.arange(len(curve)) + 0.5) / len(curve)
    inside = (centres >= start) & (centres <= end)
    if not inside.any():  # shorter than a frame's part: the frame that it lies in
        inside[min(int((start + end) / 2 * len(curve)), len(curve) - 1)] = True
    if inside.all():
        return 0.5
    difference = curve[inside][:, None] - curve[~inside][None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)
