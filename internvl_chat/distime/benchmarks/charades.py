"""Charades-STA moment retrieval: R1@{0.3, 0.5, 0.7} and mIoU.

Every annotated query counts once, whatever its video: R1@t is the share of queries whose
predicted interval has IoU >= t with the annotated one, mIoU the mean IoU. A query without a
prediction has IoU 0. Origin: TALL (Gao et al., ICCV 2017) for the task and R@n,IoU=m.

The published DisTime scorer works in float32, truncates each IoU to a whole percent before
taking the mean and divides by N + 1e-5; ``published=True`` reports that beside the exact values.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distime.benchmarks.base import Answered, Benchmark, Query, rounded_intervals
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_json, write_json
from distime.metrics.intervals import NO_ANSWER, Interval
from distime.metrics.moments import THRESHOLDS, retrieval
from distime.processing.answers import Event
from distime.processing.questions import moment_retrieval_question
from distime.values import expect, interval, is_number

if TYPE_CHECKING:
    from distime.toy.synthetic import SyntheticVideo

Predictions = dict[tuple[str, str], Interval]
"""(video, query) -> predicted interval in seconds."""


class Charades(Benchmark):
    """Only the first interval of an answer counts."""

    name = "charades"
    annotation = "charades/test_float.json"
    ground_truth = "charades_sta_test.json"
    videos = "charades"
    title = "Charades-STA"
    rank = 1
    headline = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    released = {"R1@0.3": 78.09, "R1@0.5": 56.40, "R1@0.7": 29.68, "mIoU": 52.03}
    released_8b = {"R1@0.3": 81.05, "R1@0.5": 60.32, "R1@0.7": 30.83, "mIoU": 53.54}
    peers = {
        "VTimeLLM-13B": {"R1@0.3": 55.3, "R1@0.5": 34.3, "R1@0.7": 14.7, "mIoU": 34.6},
        "TimeChat": {"R1@0.3": 51.5, "R1@0.5": 32.2, "R1@0.7": 13.4},
        "Momentor": {"R1@0.3": 42.6, "R1@0.5": 26.6, "R1@0.7": 11.6, "mIoU": 28.5},
        "HawkEye": {"R1@0.3": 50.6, "R1@0.5": 31.4, "R1@0.7": 14.5, "mIoU": 33.7},
        "TRACE": {"R1@0.3": 58.6, "R1@0.5": 40.3, "R1@0.7": 19.4, "mIoU": 38.7},
        "E.T. Chat": {"R1@0.3": 65.7, "R1@0.5": 45.9, "R1@0.7": 20.0, "mIoU": 42.3},
        "VideoMind-7B": {"R1@0.3": 73.5, "R1@0.5": 59.1, "R1@0.7": 31.2, "mIoU": 50.2},
        "TimeMarker-8B": {"R1@0.3": 73.5, "R1@0.5": 51.9},
    }  # zero-shot, of the models' papers
    official_queries, official_videos = 3720, 1334

    def queries(self) -> Iterator[Query]:
        """One query per entry of `test_float.json`."""
        try:
            for number, item in enumerate(self.read_annotation()):
                question = moment_retrieval_question(item["query"])
                yield Query(str(number), item["video"], question, item, title=item["query"])
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{video: {query: {"start", "end", "conf"}}}`, seconds."""
        results: dict[str, dict] = {}
        for query, answer in answered:
            if answer is not None:
                start, end = rounded_intervals(answer)[0]
                entry = {"start": start, "end": end, "conf": 1}
                results.setdefault(query.video, {})[query.item["query"].strip()] = entry
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated windows."""
        return [Event(*window) for window in query.item["relevant_windows"]]

    @staticmethod
    def scored_key(query: Query) -> Hashable:
        """Its video and words."""
        return query.video, query.item["query"].strip()

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score a Charades-STA ``results.json`` against ``charades_sta_test.json``."""
        predictions, duplicates = read_predictions(pred_path)
        queries = [
            query
            for query in read_ground_truth(gt_path)
            if only is None or (query.video, query.text) in only
        ]
        known = {(query.video, query.text) for query in queries}
        expect(
            not predictions or known & predictions.keys(),
            str(pred_path),
            f"none of its {len(predictions)} (video, query) pairs is in {gt_path}; "
            "are these predictions of another benchmark or split?",
        )
        result = evaluate(predictions, queries, published=published)
        counts = {**result.counts, "duplicate_keys": duplicates}
        return Result(
            result.benchmark, result.metrics, counts, result.published_as_run, result.warnings
        )

    @classmethod
    def of_synthetic(cls, specs: Sequence[SyntheticVideo], folder: Path) -> tuple[Path, Path]:
        """Write one query per event."""
        annotation, truth = folder / "test_float.json", folder / cls.ground_truth
        write_json(annotation, synthetic_queries(specs))
        write_json(truth, synthetic_truth(specs))
        return annotation, truth

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`charades_sta_test.txt` (TALL); `Charades_v1_test.csv` (Charades, for the durations)."""
        with source.find("Charades_v1_test.csv").open(encoding="utf-8", newline="") as stream:
            videos = {row["id"]: row for row in csv.DictReader(stream)}
        fps = 24.0  # of the frames that the metric's file counts
        queries, database, made = [], {}, Conversion()
        text = source.find("charades_sta_test.txt").read_text(encoding="utf-8")
        for line in filter(None, map(str.strip, text.splitlines())):
            place, _, query = line.partition("##")
            video, start, end = place.split()
            made.videos.append(video)
            if not keep(video):
                continue
            duration, window = float(videos[video]["length"]), [float(start), float(end)]
            queries.append(
                {
                    "video": video,
                    "qid": f"Charades-STA_{video}",
                    "query": query,
                    "duration": duration,
                    "relevant_windows": [[min(time, duration) for time in window]],
                    "objects": [name for name in videos[video]["objects"].split(";") if name],
                }
            )
            entry = {"subset": "Test", "duration": duration, "fps": fps, "annotations": []}
            database.setdefault(video, entry)["annotations"].append(
                {
                    "label": query,
                    "segment": window,
                    "segment(frames)": [int(time * fps) for time in window],
                }
            )
        metric = {"version": "CharadesSta-24fps", "database": database}
        made.files = {"test_float.json": queries, "charades_sta_test.json": metric}
        return made


class Moment(NamedTuple):
    """One annotated query; times in seconds."""

    video: str
    text: str
    window: Interval
    duration: float | None


def evaluate(predictions: Predictions, queries: list[Moment], *, published: bool = False) -> Result:
    """Score predictions that are already in memory.

    Raises:
        FileError: there is no query to score.
    """
    expect(queries, "ground truth", "it holds no query.")
    names = ("missing", "no_answer", "reversed", "out_of_range", "unknown")
    counts = dict.fromkeys(names, 0)
    for query in queries:
        predicted = predictions.get((query.video, query.text))
        if predicted is None:
            counts["missing"] += 1
            continue
        if predicted == NO_ANSWER:
            counts["no_answer"] += 1
        elif predicted[0] > predicted[1]:
            counts["reversed"] += 1
        elif predicted[0] < 0 or predicted[1] > (query.duration or float("inf")):
            counts["out_of_range"] += 1
    known = {(query.video, query.text) for query in queries}
    counts["unknown"] = len(predictions.keys() - known)

    pairs = [(predictions.get((query.video, query.text)), query.window) for query in queries]
    metrics = retrieval(pairs)
    as_run: dict[str, float] = {}
    warnings: list[str] = []
    if published:
        try:
            as_run = published_as_run(predictions, queries)
        except FileError as error:
            warnings.append(str(error))
    return Result("charades", metrics, {"queries": len(queries), **counts}, as_run, tuple(warnings))


def published_as_run(predictions: Predictions, queries: list[Moment]) -> dict[str, float]:
    """What the published scorer prints, in percent, float32 arithmetic and truncation included.

    Raises:
        FileError: the published scorer would stop with an exception on these predictions.
    """
    import numpy as np

    pairs = [(predictions.get((query.video, query.text)), query.window) for query in queries]
    if any(predicted is None for predicted, _ in pairs):
        raise FileError(
            "no published-as-run values: the published scorer stops (NameError) at the first "
            "query without a prediction."
        )
    start, end, gt_start, gt_end = np.array(
        [(*predicted, *window) for predicted, window in pairs if predicted is not None],
        dtype=np.float32,
    ).T
    inter = np.maximum(np.minimum(end, gt_end) - np.maximum(start, gt_start), np.float32(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        ious = inter / ((end - start) + (gt_end - gt_start) - inter)
    as_run = {}
    for rank in (1, 5):  # One prediction per query, so both ranks are the same number.
        for t in THRESHOLDS:
            hits = int((ious >= np.float32(t)).sum())
            as_run[f"R{rank}@{t}_float32"] = 100 * hits / (len(queries) + 1e-5)
    if np.isnan(ious).any():
        raise FileError(
            "no published-as-run values: the published scorer stops (ValueError) at a reversed "
            "prediction whose union with the annotated window is 0."
        )
    # The float32 IoU becomes a Python float before it is multiplied and truncated.
    as_run["mIoU_truncated"] = float(np.mean((ious.astype(np.float64) * 100).astype(np.int64)))
    return as_run


def read_predictions(path: Path) -> tuple[Predictions, int]:
    """Read ``{video: {query: {"start": s, "end": e}}}`` and count repeated keys.

    Raises:
        FileError: the file is not of this form.
    """
    value, repeated = read_json(path, "Charades-STA results.json")
    problem = (
        'expected {video: {query: {"start": s, "end": e}}}; is this another benchmark\'s file?'
    )
    expect(isinstance(value, dict), str(path), problem)
    predictions: Predictions = {}
    for video, answers in value.items():
        expect(isinstance(answers, dict), f"{path}, {video}", problem)
        for query, answer in answers.items():
            place = f"{path}, {video}, {query!r}"
            expect(isinstance(answer, dict) and {"start", "end"} <= answer.keys(), place, problem)
            predictions[video, query] = interval([answer["start"], answer["end"]], place)
    return predictions, len(repeated)


def read_ground_truth(path: Path) -> list[Moment]:
    """Read ``charades_sta_test.json``, or the clipped windows of ``test_float.json``.

    Raises:
        FileError: the file is neither.
    """
    value, _ = read_json(path, "Charades-STA annotation (charades_sta_test.json)")
    try:
        if isinstance(value, list):
            return [
                _query(path, row["video"], row["query"], row["relevant_windows"][0], row)
                for row in value
            ]
        return [
            _query(path, video, annotation["label"], annotation["segment"], entry)
            for video, entry in value["database"].items()
            for annotation in entry["annotations"]
        ]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise FileError(
            f"{path}: not a Charades-STA annotation ({error!r}); give charades_sta_test.json "
            "or test_float.json."
        ) from None


def _query(path: Path, video: str, text: str, window: Any, entry: dict[str, Any]) -> Moment:
    start, end = interval(window, f"{path}, {video}, {text!r}")
    duration = entry.get("duration")
    # As the published scorer: an annotated window in the wrong order is swapped.
    return Moment(
        video, text, (min(start, end), max(start, end)), duration if is_number(duration) else None
    )


def synthetic_queries(specs: Iterable[SyntheticVideo]) -> list[dict]:
    """Return one query per event of synthetic videos, as in ``test_float.json``."""
    return [
        {
            "video": spec.name,
            "qid": f"Charades-STA_{spec.name}",
            "query": event.query,
            "duration": spec.duration,
            "relevant_windows": [[event.start, event.end]],
            "objects": [event.shape],
        }
        for spec in specs
        for event in spec.events
    ]


def synthetic_truth(specs: Sequence[SyntheticVideo]) -> dict:
    """Return the same queries as in the metric's ``charades_sta_test.json``."""
    return {
        "version": "synthetic",
        "database": {
            spec.name: {
                "subset": "Test",
                "duration": spec.duration,
                "fps": float(spec.fps),
                "annotations": [
                    {
                        "label": event.query,
                        "segment": [event.start, event.end],
                        "segment(frames)": [
                            round(event.start * spec.fps),
                            round(event.end * spec.fps),
                        ],
                    }
                    for event in spec.events
                ],
            }
            for spec in specs
        },
    }
