"""YouCook2 dense captioning: SODA_c, CIDEr, METEOR, precision, recall and F1 (percent).

The definitions of dense_captioning.py, averaged over thresholds and then over videos. F1 is the
harmonic mean of a video's mean precision and mean recall, averaged over videos. Para_CIDEr and
Para_METEOR compare all captions of a video as one text. A reversed predicted window is repaired,
as in the published scorer. A video without predictions counts 0 everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Query,
    captioned_events,
    restricted,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_json, write_json
from distime.metrics import meteor, ptb
from distime.metrics.cider import cider
from distime.metrics.dense_captioning import (
    CaptionedVideo,
    TimedCaptions,
    calls_one_by_one,
    captioning_metrics,
    needed_pairs,
    soda_c,
)
from distime.metrics.intervals import Interval
from distime.metrics.meteor import Aligner
from distime.processing.answers import Event
from distime.processing.questions import STEP_CAPTIONING
from distime.values import expect, interval, is_number

Annotations = Mapping[str, tuple[list[Interval], list[str]]]
"""video -> windows in seconds and captions."""


class YouCook2(Benchmark):
    """One question for every video."""

    name = "youcook2_dvc"
    annotation = "youcook2_dvc/val.caption_coco_format.json"
    videos = "youcook2_dvc"
    title = "YouCook2-DVC"
    rank = 4
    headline = ("SODA_c", "CIDEr", "METEOR", "F1")
    released = {"SODA_c": 4.20, "CIDEr": 15.56, "METEOR": 3.73, "F1": 20.46}
    released_8b = {"SODA_c": 6.98, "CIDEr": 31.02, "METEOR": 6.59, "F1": 26.40}
    peers = {"TRACE": {"CIDEr": 8.1, "F1": 22.4}}  # of its paper
    prepared_as = "youcook2"
    official_queries = official_videos = 415
    official_note = (
        "the official file has 457 validation videos, published results are on the 415 that could "
        "still be downloaded: --available-only keeps those on your disk"
    )

    def queries(self) -> Iterator[Query]:
        """One query per entry of `val.caption_coco_format.json`."""
        try:
            for item in self.read_annotation()["annotations"]:
                yield Query(item["image_id"], item["image_id"], STEP_CAPTIONING, item)
        except (KeyError, TypeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{video: [{"timestamp": [s, e], "caption"}]}`, seconds, not rounded."""
        results = {
            query.video: [
                {"timestamp": [event.start, event.end], "caption": event.text}
                for event in captioned_events(answer)
            ]
            for query, answer in answered
            if answer is not None
        }
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated steps."""
        steps = query.item["pure_cap"].split(". ")
        pairs = zip(query.item["segments"], steps, strict=False)
        return [Event(*segment, text=step) for segment, step in pairs]

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score a YouCook2 ``results.json`` against ``val.caption_coco_format.json``."""
        predictions, duplicates = read_predictions(pred_path)
        annotations, durations = read_ground_truth(gt_path)
        annotations = restricted(annotations, only)
        expect(
            not predictions or predictions.keys() & annotations.keys(),
            str(pred_path),
            f"none of its {len(predictions)} videos is in {gt_path}; is this another benchmark?",
        )
        beyond = sum(
            start < 0 or end > durations.get(name, math.inf)
            for name, (windows, _) in predictions.items()
            for start, end in map(sorted, windows)
        )
        counts = {"out_of_range": beyond, "duplicate_keys": duplicates}
        return evaluate(predictions, annotations, published=published, counts=counts)

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`youcookii_annotations_trainval.json` of YouCook2, its validation part."""
        database = source.json("youcookii_annotations_trainval.json")["database"]
        made, annotations = Conversion(), []
        for video, entry in database.items():
            if entry["subset"] != "validation":
                continue
            made.videos.append(f"{video}.mp4")
            if not keep(f"{video}.mp4"):
                continue
            steps = sorted(entry["annotations"], key=lambda step: step["id"])
            # The metric cuts the captions apart at ". ", so a full stop inside one must go.
            captions = [re.sub(r"\.(?=\s|$)", "", step["sentence"]).strip() for step in steps]
            annotations.append(
                {
                    "image_id": f"{video}.mp4",
                    "id": len(annotations),
                    "duration": entry["duration"],
                    "segments": [step["segment"] for step in steps],
                    "pure_cap": ". ".join(captions),
                }
            )
        made.files = {"val.caption_coco_format.json": {"annotations": annotations}}
        return made


def evaluate(
    predictions: Annotations,
    annotations: Annotations,
    *,
    published: bool = False,
    counts: Mapping[str, int] | None = None,
) -> Result:
    """Score events that are already in memory; ``counts`` are passed on.

    Raises:
        FileError: there is no video to score, or Java fails.
    """
    expect(annotations, "ground truth", "it holds no video.")
    empty: tuple[list[Interval], list[str]] = ([], [])
    both = [(predictions.get(name, empty), truth) for name, truth in annotations.items()]
    tokens = ptb.tokenize(text for pair in both for _, captions in pair for text in captions)
    videos = [CaptionedVideo(_events(pred, tokens), _events(truth, tokens)) for pred, truth in both]
    paragraphs = [
        (_words(". ".join(pred)), _words(" ".join(truth))) for (_, pred), (_, truth) in both
    ]
    as_run: dict[str, float] = {}
    with Aligner([*tokens.values(), *(text for pair in paragraphs for text in pair)]) as aligner:
        metrics = _metrics(videos, paragraphs, aligner)
        alignments = aligner.alignments
        if published:
            as_run = _published_as_run(metrics, videos, paragraphs, aligner)
    windows = [window for predicted, _ in both for window in predicted[0]]
    counted = {
        "videos": len(videos),
        "missing": sum(name not in predictions for name in annotations),
        "without_events": sum(not len(v.predicted) for v in videos),
        "unknown": len(predictions.keys() - annotations.keys()),
        "events": len(windows),
        "reversed": sum(start > end for start, end in windows),
        **(counts or {}),
        "meteor_alignments": alignments,
        "meteor_calls_one_by_one": calls_one_by_one(videos),
    }
    return Result("youcook2_dvc", metrics, counted, as_run)


def _metrics(
    videos: Sequence[CaptionedVideo], paragraphs: Sequence[meteor.Pair], aligner: Aligner
) -> dict[str, float]:
    aligner.request([*needed_pairs(videos), *paragraphs])  # At once, to keep Java busy.
    metrics = captioning_metrics(videos, aligner)
    metrics |= _paragraph_metrics(paragraphs, aligner)
    metrics["n_preds"] = sum(len(video.predicted) for video in videos) / len(videos)
    return metrics


def _published_as_run(
    metrics: Mapping[str, float],
    videos: Sequence[CaptionedVideo],
    paragraphs: Sequence[meteor.Pair],
    aligner: Aligner,
) -> dict[str, float]:
    as_run = {name: value for name, value in metrics.items() if not name.startswith("Para")}
    del as_run["SODA_c"]
    permuted = [_permuted(video) for video in videos]
    as_run["SODA_c_permuted"] = 100 * float(soda_c(permuted, aligner).mean())
    as_run["SODA_c_1"] = -100.0  # Filled with -1 and never computed.
    # The paragraph of a video without predictions is skipped but not its reference, so that every
    # later paragraph meets the reference of another video.
    answered = [p for (p, _), v in zip(paragraphs, videos, strict=True) if len(v.predicted)]
    shifted = list(zip(answered, [reference for _, reference in paragraphs], strict=False))
    suffix = "" if len(answered) == len(videos) else "_misaligned"
    for name, value in _paragraph_metrics(shifted, aligner).items():
        as_run[f"{name}{suffix}"] = value
    return as_run


def _paragraph_metrics(paragraphs: Sequence[meteor.Pair], aligner: Aligner) -> dict[str, float]:
    summed = aligner.statistics(paragraphs).sum(axis=0, keepdims=True)
    return {
        "Para_CIDEr": 100 * cider(paragraphs),
        "Para_METEOR": 100 * float(meteor.scores(summed)[0]),
    }


def _events(part: tuple[list[Interval], list[str]], tokens: Mapping[str, str]) -> TimedCaptions:
    windows = np.sort(np.array(part[0], dtype=np.float64).reshape(-1, 2), axis=1)
    return TimedCaptions(windows, [tokens[caption] for caption in part[1]])


def _permuted(video: CaptionedVideo) -> CaptionedVideo:
    # The published METEOR returns its scores in the order of the ids as strings ('0', '1', '10',
    # ...), and SODA multiplies them with the IoUs in natural order.
    order = sorted(range(len(video.predicted)), key=str)
    captions = [video.predicted.captions[i] for i in order]
    return CaptionedVideo(TimedCaptions(video.predicted.windows, captions), video.annotated)


def _words(text: str) -> str:
    return " ".join(re.findall("[a-zA-Z]+", text)).lower()


def read_predictions(path: Path) -> tuple[dict[str, tuple[list[Interval], list[str]]], int]:
    """Read ``{video: [{"timestamp": [s, e], "caption": text}]}`` and count repeated keys.

    Raises:
        FileError: the file is not of this form.
    """
    value, repeated = read_json(path, "YouCook2 results.json")
    problem = (
        'expected {video: [{"timestamp": [s, e], "caption": text}]}; '
        "is this another benchmark's file?"
    )
    expect(isinstance(value, dict), str(path), problem)
    predictions = {}
    for name, events in value.items():
        expect(isinstance(events, list), f"{path}, {name}", problem)
        windows, captions = [], []
        for number, event in enumerate(events, 1):
            place = f"{path}, {name}, event {number}"
            expect(isinstance(event, dict), place, problem)
            expect({"timestamp", "caption"} <= event.keys(), place, problem)
            expect(isinstance(event["caption"], str), place, "the caption is not a text.")
            windows.append(interval(event["timestamp"], place))
            captions.append(event["caption"])
        predictions[name] = windows, captions
    return predictions, len(repeated)


def read_ground_truth(path: Path) -> tuple[Annotations, dict[str, float]]:
    """Read ``{"annotations": [{"image_id", "segments": [[s, e]], "pure_cap": "a. b"}]}``.

    Returns:
        The annotations, and the duration of the videos that have one, in seconds.

    Raises:
        FileError: the file is not of this form, or captions and segments do not pair up.
    """
    value, _ = read_json(path, "YouCook2 annotation (val.caption_coco_format.json)")
    annotations, durations = {}, {}
    try:
        rows: list[Any] = value["annotations"]
        for row in rows:
            place = f"{path}, {row['image_id']}"
            captions = [f"{caption}." for caption in row["pure_cap"].split(". ")]
            windows = [interval(segment, place) for segment in row["segments"]]
            expect(
                len(captions) == len(windows),
                place,
                f"{len(windows)} segments but {len(captions)} captions in pure_cap.",
            )
            annotations[row["image_id"]] = windows, captions
            if is_number(row.get("duration")):
                durations[row["image_id"]] = row["duration"]
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(
            f"{path}: not a YouCook2 annotation ({error!r}); give val.caption_coco_format.json."
        ) from None
    return annotations, durations
