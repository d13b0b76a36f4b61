"""ActivityNet-Captions moment retrieval: R1@{0.3, 0.5, 0.7} and mIoU.

Every annotated sentence counts once. Only the first predicted window of a sentence is used;
a sentence without a prediction has IoU 0. IoU = intersection / (union + 1e-8) in float64: the
1e-8 is part of the scorers that published results of this task come from, so the headline keeps
it (an IoU of exactly 0.5 is then a miss) and ``counts`` says how many ties it decided.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distime.benchmarks.base import Answered, Benchmark, Query, rounded_intervals
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_json, write_json
from distime.metrics.intervals import NO_ANSWER, Interval, reaches
from distime.processing.answers import Event
from distime.processing.questions import moment_retrieval_question
from distime.values import expect, interval, is_number

THRESHOLDS = (0.3, 0.5, 0.7)
EPSILON = 1e-8

Predictions = dict[str, Interval]
"""``video-index`` -> first predicted window in seconds."""


class Anet(Benchmark):
    """Every interval of an answer is kept; the metric reads the first."""

    name = "anet"
    annotation = "anet/val_2.json"
    videos = "anet"
    title = "ANet-Caption"
    rank = 2
    headline = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    released = {"R1@0.3": 67.09, "R1@0.5": 45.41, "R1@0.7": 23.12, "mIoU": 45.24}
    released_8b = {"R1@0.3": 72.90, "R1@0.5": 53.24, "R1@0.7": 30.32, "mIoU": 50.53}
    official_queries, official_videos = 17031, 4885

    def queries(self) -> Iterator[Query]:
        """One query per sentence of `val_2.json`."""
        try:
            for video, entry in self.read_annotation().items():
                pairs = zip(entry["sentences"], entry["timestamps"], strict=True)
                for number, (sentence, window) in enumerate(pairs):
                    question = moment_retrieval_question(sentence)
                    item = (number, sentence, window)
                    yield Query(f"{video}-{number}", video, question, item, title=sentence)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{"results": {"VIDEO-NUMBER": {"timestamp": [[s, e], ...], ...}}}`, seconds."""
        results = {}
        for query, answer in answered:
            if answer is not None:
                number, sentence, _ = query.item
                results[query.id] = {
                    "video_id": query.video,
                    "anno_id": number,
                    "timestamp": rounded_intervals(answer),
                    "query": sentence.strip(),
                }
        path = out_dir / "results.json"
        write_json(path, {"results": results})
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window."""
        return [Event(*query.item[2])]

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score an ActivityNet ``results.json`` against ``val_2.json``."""
        predictions, duplicates = read_predictions(pred_path)
        videos = read_ground_truth(gt_path)
        known = {f"{name}-{i}" for name, video in videos.items() for i in range(len(video.windows))}
        expect(
            not predictions or known & predictions.keys(),
            str(pred_path),
            f"none of its {len(predictions)} keys is in {gt_path}; "
            "are these predictions of another benchmark or split?",
        )
        counts = {"duplicate_keys": duplicates, "unknown": len(predictions.keys() - known)}
        return evaluate(predictions, videos, published=published, counts=counts, only=only)

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`val_2.json` of ActivityNet Captions; the format stays."""
        value = source.json("val_2.json")
        wanted = {video: entry for video, entry in value.items() if keep(video)}
        videos = [video for video, entry in value.items() for _ in entry["sentences"]]
        return Conversion({"val_2.json": wanted}, videos)


class AnnotatedVideo(NamedTuple):
    """One annotated video; times in seconds."""

    duration: float
    windows: list[Interval]
    sentences: list[str]


def evaluate(
    predictions: Predictions,
    videos: dict[str, AnnotatedVideo],
    *,
    published: bool = False,
    counts: dict[str, int] | None = None,
    only: Collection[Hashable] | None = None,
) -> Result:
    """Score predictions that are already in memory; ``counts`` are passed on.

    Args:
        predictions: by key.
        videos: the annotated ones.
        published: also compute what the published scorer gives.
        counts: passed on.
        only: keys of the sentences that count, by default all.

    Raises:
        FileError: there is no sentence to score.
    """
    names = ("missing", "no_answer", "reversed", "out_of_range", "ties_below_threshold")
    tally = dict.fromkeys(names, 0)
    pairs: list[tuple[Interval, Interval]] = []
    for name, video in videos.items():
        for index, window in enumerate(video.windows):
            if only is not None and f"{name}-{index}" not in only:
                continue
            predicted = predictions.get(f"{name}-{index}")
            if predicted is None:
                tally["missing"] += 1
            elif predicted == NO_ANSWER:
                tally["no_answer"] += 1
            elif predicted[0] > predicted[1]:
                tally["reversed"] += 1
            elif predicted[0] < 0 or predicted[1] > video.duration:
                tally["out_of_range"] += 1
            pairs.append((predicted or NO_ANSWER, window))
    expect(pairs, "ground truth", "it holds no sentence.")

    (start, end), (gt_start, gt_end) = np.array(pairs, dtype=np.float64).transpose(1, 2, 0)
    intersection = np.maximum(0.0, np.minimum(end, gt_end) - np.maximum(start, gt_start))
    hull = np.maximum(end, gt_end) - np.minimum(start, gt_start)
    union = np.minimum(hull, (end - start) + (gt_end - gt_start))
    # A missing or reversed prediction has intersection 0 whatever the other terms are.
    ious = np.where(intersection > 0, intersection / (union + EPSILON), 0.0)
    hits = {t: int((ious >= t).sum()) for t in THRESHOLDS}

    total = len(pairs)
    metrics = {f"R1@{t}": 100 * hits[t] / total for t in THRESHOLDS}
    metrics["mIoU"] = 100 * float(ious.mean())
    for t in THRESHOLDS:
        for i in np.flatnonzero((t - 1e-7 < ious) & (ious < t)):
            tally["ties_below_threshold"] += reaches(*pairs[i], t)
    as_run = {}
    if published:
        as_run = {
            f"R1@{t}_float32": 100 * float(np.float32(hits[t]) / np.float32(total))
            for t in THRESHOLDS
        }
        as_run["mIoU"] = metrics["mIoU"]
    counted = {"queries": total, "videos": len(videos), **tally, **(counts or {})}
    return Result("anet", metrics, counted, as_run)


def read_predictions(path: Path) -> tuple[Predictions, int]:
    """Read ``{"results": {"video-index": {"timestamp": [[s, e], ...]}}}``; count repeated keys.

    Raises:
        FileError: the file is not of this form.
    """
    value, repeated = read_json(path, "ActivityNet results.json")
    problem = (
        'expected {"results": {"video-index": {"timestamp": [[s, e]]}}}; '
        "is this another benchmark's file?"
    )
    expect(isinstance(value, dict) and isinstance(value.get("results"), dict), str(path), problem)
    predictions: Predictions = {}
    for key, answer in value["results"].items():
        place = f"{path}, {key}"
        windows = answer.get("timestamp") if isinstance(answer, dict) else None
        expect(isinstance(windows, list), place, problem)
        predictions[key] = interval(windows[0], place) if windows else NO_ANSWER
    return predictions, len(repeated)


def read_ground_truth(path: Path) -> dict[str, AnnotatedVideo]:
    """Read ``{video: {"duration": d, "timestamps": [[s, e]], "sentences": [text]}}``.

    Raises:
        FileError: the file is not of this form.
    """
    value, _ = read_json(path, "ActivityNet-Captions annotation (val_2.json)")
    expect(isinstance(value, dict), str(path), "not an ActivityNet annotation; give val_2.json.")
    videos = {}
    for name, entry in value.items():
        place = f"{path}, {name}"
        try:
            duration, windows = entry["duration"], entry["timestamps"]
            sentences = [str(sentence) for sentence in entry["sentences"]]
            windows = [interval(window, place) for window in windows]
        except (KeyError, TypeError) as error:
            raise FileError(
                f"{place}: not an ActivityNet annotation ({error!r}); give val_2.json."
            ) from None
        expect(is_number(duration), place, f"duration {duration!r} is not a number of seconds.")
        expect(
            len(windows) == len(sentences),
            place,
            f"{len(windows)} timestamps but {len(sentences)} sentences.",
        )
        videos[name] = AnnotatedVideo(duration, windows, sentences)
    return videos
