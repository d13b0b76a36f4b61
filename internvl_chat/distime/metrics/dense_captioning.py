"""What benchmarks of dense captioning share: localisation, captions, SODA_c.

Predicted and annotated events of a video meet through their IoU, at thresholds .3, .5, .7, .9:

- Precision@t, Recall@t: share of predicted (annotated) events with some IoU *above* t.
- CIDEr, METEOR: every (predicted, annotated) pair with IoU of *at least* t is compared; a
  predicted event without such a pair is compared with nonsense, an annotated one without costs
  nothing (Krishna et al., ICCV 2017). One corpus per video and threshold.
- SODA_c (Fujita et al., ECCV 2020): the best one-to-one, order-preserving matching of IoU times
  METEOR, as F-measure. As in the original code METEOR takes the annotated caption for the
  hypothesis; events that do not overlap contribute nothing, so they need no METEOR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distime.metrics import meteor
from distime.metrics.bleu_rouge import bleu, rouge_l
from distime.metrics.cider import cider
from distime.metrics.meteor import Aligner, Pair

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
EPSILON = 1e-8


@dataclass(frozen=True)
class TimedCaptions:
    """Events of a video: ``(n, 2)`` windows in seconds and their tokenised captions."""

    windows: np.ndarray
    captions: Sequence[str]

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class CaptionedVideo:
    """Predicted and annotated events of one video, in the order that SODA keeps."""

    predicted: TimedCaptions
    annotated: TimedCaptions
    thresholds: Sequence[float] = THRESHOLDS

    @cached_property
    def ious(self) -> np.ndarray:
        """``(predicted, annotated)`` IoU."""
        return iou_matrix(self.predicted.windows, self.annotated.windows)

    @cached_property
    def matches(self) -> dict[float, tuple[list[Pair], list[str]]]:
        """Threshold -> the caption pairs and the predicted captions without one."""
        predicted, annotated = self.predicted.captions, self.annotated.captions
        table = {}
        for t in self.thresholds:
            hits = self.ious >= t
            pairs = [(predicted[p], annotated[g]) for p, g in np.argwhere(hits).tolist()]
            alone = np.flatnonzero(~hits.any(axis=1)).tolist()
            table[t] = pairs, [predicted[p] for p in alone]
        return table


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of every window of ``a`` ``(n, 2)`` with every one of ``b`` ``(m, 2)``.

    The 1e-8 in the denominator is that of the published scorers. A reversed window overlaps
    nothing.
    """
    start_a, end_a = a[:, None, 0], a[:, None, 1]
    start_b, end_b = b[None, :, 0], b[None, :, 1]
    intersection = np.maximum(0.0, np.minimum(end_a, end_b) - np.maximum(start_a, start_b))
    hull = np.maximum(end_a, end_b) - np.minimum(start_a, start_b)
    union = np.minimum(hull, (end_a - start_a) + (end_b - start_b))
    return np.where(intersection > 0, intersection / (union + EPSILON), 0.0)


def localisation(
    ious: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Return Precision@t and Recall@t of one video for each threshold, in [0, 1]."""
    predicted, annotated = ious.shape
    if not predicted or not annotated:
        return np.zeros(len(thresholds)), np.zeros(len(thresholds))
    best_predicted, best_annotated = ious.max(axis=1), ious.max(axis=0)
    precision = [float((best_predicted > t).sum()) / predicted for t in thresholds]
    recall = [float((best_annotated > t).sum()) / annotated for t in thresholds]
    return np.array(precision), np.array(recall)


def f1(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def best_ordered_matching(values: np.ndarray) -> float:
    """Return the largest sum of entries, strictly increasing in both row and column.

    Args:
        values: ``(rows, columns)`` non-negative gains.
    """
    best = np.zeros(values.shape[1] + 1)
    for row in values:
        # Taking (i, j) builds on the best of rows < i and columns < j; a running maximum then
        # carries it to the columns on the right.
        best[1:] = np.maximum(best[1:], best[:-1] + row)
        np.maximum.accumulate(best, out=best)
    return float(best[-1])


def soda_f(ious: np.ndarray, meteor_scores: np.ndarray) -> float:
    """Return SODA_c of one video in [0, 1] from two ``(predicted, annotated)`` matrices."""
    predicted, annotated = ious.shape
    if not predicted or not annotated:
        return 0.0
    total = best_ordered_matching((ious * meteor_scores).T)
    return f1(total / predicted, total / annotated)


def needed_pairs(videos: Iterable[CaptionedVideo]) -> Iterator[Pair]:
    """Yield every caption pair whose METEOR alignment can matter."""
    for video in videos:
        yield from soda_pairs(video)
        yield from video.matches[video.thresholds[0]][0]


def soda_pairs(video: CaptionedVideo) -> Iterator[Pair]:
    """Yield the pairs of overlapping events, the annotated caption as hypothesis."""
    for p, g in np.argwhere(video.ious > 0).tolist():
        yield video.annotated.captions[g], video.predicted.captions[p]


def calls_one_by_one(videos: Iterable[CaptionedVideo]) -> int:
    """Return how many alignments there are without reuse and the test for overlap.

    So the published scorers work, one request after the other.
    """
    calls = 0
    for video in videos:
        calls += video.ious.size
        for t in video.thresholds:
            pairs, alone = video.matches[t]
            calls += len(pairs) + len(alone)
    return calls


def soda_c(videos: Sequence[CaptionedVideo], aligner: Aligner) -> np.ndarray:
    """Return SODA_c of each video in [0, 1]."""
    values = meteor.scores(aligner.statistics([pair for v in videos for pair in soda_pairs(v)]))
    result, used = [], 0
    for video in videos:
        table = np.zeros(video.ious.shape)
        overlapping = video.ious > 0
        count = int(overlapping.sum())
        table[overlapping] = values[used : used + count]
        used += count
        result.append(soda_f(video.ious, table))
    return np.array(result)


def caption_scores(
    videos: Sequence[CaptionedVideo], aligner: Aligner
) -> tuple[np.ndarray, np.ndarray]:
    """Return METEOR and CIDEr, each ``(videos, thresholds)`` in their own unit (CIDEr up to 10)."""
    groups = [video.matches[t] for video in videos for t in video.thresholds]
    ciders = np.array([cider(group, len(others)) for group, others in groups])
    # METEOR last: Java works on what was requested meanwhile.
    pairs = aligner.statistics([pair for group, _ in groups for pair in group])
    alone = aligner.unmatched([text for _, group in groups for text in group])
    sums = _group_sums(pairs, [len(group) for group, _ in groups])
    sums += _group_sums(alone, [len(group) for _, group in groups])
    shape = (len(videos), len(videos[0].thresholds))
    return meteor.scores(sums).reshape(shape), ciders.reshape(shape)


def localisation_metrics(videos: Sequence[CaptionedVideo]) -> dict[str, float]:
    """Return F1, Precision and Recall of the windows in percent, the latter also by threshold.

    F1 is the harmonic mean of a video's mean precision and mean recall, averaged over videos.
    """
    precision, recall = (
        np.array(part) for part in zip(*(localisation(v.ious) for v in videos), strict=True)
    )
    f1s = [f1(p, r) for p, r in zip(precision.mean(axis=1), recall.mean(axis=1), strict=True)]
    metrics = {
        "F1": 100 * float(np.mean(f1s)),
        "Precision": 100 * float(precision.mean()),
        "Recall": 100 * float(recall.mean()),
    }
    for i, t in enumerate(THRESHOLDS):
        metrics[f"Precision@{t}"] = 100 * float(precision[:, i].mean())
        metrics[f"Recall@{t}"] = 100 * float(recall[:, i].mean())
    return metrics


def captioning_metrics(videos: Sequence[CaptionedVideo], aligner: Aligner) -> dict[str, float]:
    """Return SODA_c, CIDEr and METEOR in percent, then `localisation_metrics`."""
    meteors, ciders = caption_scores(videos, aligner)
    return {
        "SODA_c": 100 * float(soda_c(videos, aligner).mean()),
        "CIDEr": 100 * float(ciders.mean()),
        "METEOR": 100 * float(meteors.mean()),
        **localisation_metrics(videos),
    }


def bleu_and_rouge(videos: Sequence[CaptionedVideo]) -> dict[str, float]:
    """Return BLEU-1..4 and ROUGE-L in [0, 1], means over videos and thresholds."""
    rows = []
    for video in videos:
        for t in video.thresholds:
            pairs, alone = video.matches[t]
            total = len(pairs) + len(alone)
            rouge = sum(rouge_l(*pair) for pair in pairs) / total if total else 0.0
            rows.append([rouge, *bleu(pairs, alone)])
    names = ("Rouge-L", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _group_sums(rows: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    ends = np.cumsum([0, *sizes])
    cumulative = np.vstack([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    # Counts are whole numbers far below 2**53, so differences of running sums are exact.
    return cumulative[ends[1:]] - cumulative[ends[:-1]]
