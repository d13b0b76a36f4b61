"""Arithmetic of tasks about events that E.T. Bench made common: one answer against its truth.

Intervals are in seconds, scores in [0, 1]. IoUs are in float32 as published, which decides ties.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distime.metrics.dense_captioning import f1
from distime.metrics.intervals import Interval

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
LETTERS = "ABCDE"


def float32_ious(predicted: Sequence[Interval], truth: Sequence[Interval]) -> np.ndarray:
    """``(predicted, true)`` IoU; 0 where neither has a length."""
    a, b = (np.asarray(part, np.float32).reshape(-1, 2) for part in (predicted, truth))
    ends, starts = np.minimum(a[:, None, 1], b[:, 1]), np.maximum(a[:, None, 0], b[:, 0])
    common = np.maximum(ends - starts, np.float32(0))
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0]) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union != 0)


def first_iou(predicted: Sequence[Interval], truth: Sequence[Interval]) -> float:
    """IoU of the first interval with the best true one; 0 where there is none."""
    return float(float32_ious(predicted[:1], truth).max()) if predicted else 0.0


def hit_table(ious: Sequence[float | None], each: str, mean: str) -> dict[str, float]:
    """Mean IoU, the share of IoUs >= each threshold, and the mean of the shares.

    Args:
        ious: of every answer; None for one that does not count whatever it reaches.
        each: name of a share, such as "R" for "R@0.5".
        mean: name of their mean.
    """
    hits = [[iou is not None and iou >= t for iou in ious] for t in THRESHOLDS]
    shares = {f"{each}@{t}": sum(row) / len(row) for t, row in zip(THRESHOLDS, hits, strict=True)}
    table = {"mIoU": sum(iou or 0.0 for iou in ious) / len(ious), **shares}
    return table | {mean: sum(shares.values()) / len(shares)}


def all_intervals_f1(predicted: Sequence[Interval], truth: Sequence[Interval]) -> dict[str, float]:
    """F1 of the shares of true and of predicted intervals that some other reaches, and its mean."""
    f1s = dict.fromkeys(THRESHOLDS, 0.0)
    if predicted and truth:
        ious = float32_ious(predicted, truth)
        for t in THRESHOLDS:
            shares = [(ious.max(axis=i) >= t).mean(dtype=np.float32) for i in (0, 1)]
            f1s[t] = f1(*map(float, shares))
    table = {f"F1@{t}": value for t, value in f1s.items()}
    return table | {"F1": sum(f1s.values()) / len(f1s)}


def seconds_f1(
    predicted: Sequence[Interval], truth: Sequence[Interval], end: int | None = None
) -> float:
    """F1 of the whole seconds that intervals mark, half to even; `end` is the first left out."""
    said, true = (
        {second for start, stop in part for second in range(max(0, round(start)), round(stop))}
        for part in (predicted, truth)
    )
    if end is not None:
        said, true = ({second for second in part if second < end} for part in (said, true))
    both = len(said & true)
    return f1(both / len(said), both / len(true)) if both else 0.0


class Letter(NamedTuple):
    """What `read_letter` finds."""

    place: int | None
    """Of the option, counted from 0; None where no option's letter is read."""
    rest: str
    """What is left of the text then; '' says that there is no answer."""
    seen: bool
    """Whether any letter was met, also one that no option has."""


def read_letter(text: str, count: int, *, in_brackets: bool, truth: int | None = None) -> Letter:
    """Read the letter of an option as the published scorer does.

    A letter in brackets anywhere, where those are looked for; else, behind "Best Option:", blanks
    and "(", a letter alone or before a dot, comma, blank or bracket.

    Args:
        text: the answer.
        count: how many options there are.
        in_brackets: whether to look for a letter in brackets first.
        truth: the right option, for the copies of that scorer where a wrong letter is not final
            but leads on to the next step.
    """
    letters = LETTERS[:count].lower()
    match = re.search(r"\(([A-Za-z])\)", text) if in_brackets else None
    if match and match[1].lower() in letters:
        place = letters.index(match[1].lower())
        if truth is None or place == truth:
            return Letter(place, "", True)
    text = text.lower().removeprefix("best option:").lstrip().lstrip("(").lstrip()
    begins = len(text) == 1 or text[1:2] in (".", ",", " ", ")")
    if text and begins and text[0] in letters:
        place = letters.index(text[0])
        if truth is None or place == truth:
            return Letter(place, "", True)
    return Letter(None, text, bool(text and (begins or match)))
