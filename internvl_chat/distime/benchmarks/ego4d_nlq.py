"""Ego4D natural-language queries: where in a long first-person clip is a question answered?

IoU is overlap over the hull; R@k IoU>t takes the best of the first k intervals and must exceed t;
mIoU is that of the first. A query that is missing is a miss. The published scorer looks at the
predictions it is given alone, and its mean is not a number where a true point is answered exactly.

Two other scorers are in use, each with annotations of its own form: UniTime's sums overlaps without
merging (``..._summed``), TimeLens2's compares sets of whole seconds (``..._of_sets``).

Definitions: gh:EGO4D/episodic-memory, NLQ/VSLNet/utils/evaluate_ego4d_nlq.py at 5275b95;
gh:Lzq5/UniTime at d889a71; gh:MCG-NJU/TimeLens2, evaluation/vlmeval/dataset/ego4d_nlq_v2.py at
a5ce450. The data need a licence of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distime.benchmarks.base import Answered, Benchmark, Query, restricted
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_text, write_json
from distime.metrics.interval_sets import set_iou, summed_recall, whole_seconds
from distime.metrics.intervals import NO_ANSWER, Interval
from distime.metrics.moments import hull_iou, recall_table
from distime.metrics.time_texts import signed_pairs
from distime.processing.answers import Event
from distime.values import expect, interval

THRESHOLDS = (0.3, 0.5, 0.01)
RANKS = (1, 3, 5)
SET_THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)


class Truth(NamedTuple):
    """The annotation of the queries, and whose form it had; times in seconds."""

    windows: dict[str, list[Interval]]
    form: str
    kinds: dict[str, str]
    """Query -> its kind, where the annotation says."""


class Ego4DNLQ(Benchmark):
    """Intervals are kept in the order of the answer."""

    name = "ego4d_nlq"
    title = "Ego4D-NLQ"
    rank = 29
    annotation = "ego4d_nlq/nlq_val.json"
    videos = "ego4d_nlq"
    owners_prompt = (
        'You are given a video.\nTask: temporal grounding.\nGiven the query: "{query}", return '
        "the time span (in seconds) where the query is grounded in the video.\nOutput format "
        "MUST be [[start, end]].\n"
    )  # TimeLens2's
    headline = ("R@1 IoU>0.3", "R@1 IoU>0.5", "R@5 IoU>0.3", "R@5 IoU>0.5", "mIoU")

    def queries(self) -> Iterator[Query]:
        """One query per language query that has words; videos are the clips."""
        try:
            for clip, annotation, number, item in language_queries(self.read_annotation()):
                if item.get("query"):
                    question = self.moment_question(item["query"])
                    key = key_of(clip, annotation, number)
                    yield Query(
                        key, clip, question, (annotation, number, item), title=item["query"]
                    )
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{"results": [{"clip_uid", "annotation_uid", "query_idx", "predicted_times"}]}`."""
        results = [
            {
                "clip_uid": query.video,
                "annotation_uid": query.item[0],
                "query_idx": query.item[1],
                "predicted_times": [[e.start, e.end] for e in answer.events] or [list(NO_ANSWER)],
            }
            for query, answer in answered
            if answer is not None
        ]
        path = out_dir / "results.json"
        head = {"version": "1.0", "challenge": "ego4d_nlq_challenge"}
        write_json(path, {**head, "results": results})
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window."""
        item = query.item[2]
        return [Event(item["clip_start_sec"], item["clip_end_sec"])]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score the challenge's file, UniTime's list, or TimeLens2's rows of text."""
        found, duplicates = read_predictions(predictions)
        everything, form, kinds = read_ground_truth(ground_truth)
        truth = restricted(everything, only)
        expect(
            truth.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} queries is in {ground_truth}; is this another split?",
        )
        known = {key: spans for key, spans in found.items() if key in everything}
        metrics = _table([(found.get(key, []), windows) for key, windows in truth.items()])
        own = [(spans, everything[key]) for key, spans in known.items()]
        as_run: dict[str, float] = {}
        warnings = []
        if published and form == "sets":
            ious = {
                key: set_iou(whole_seconds(found.get(key, [])), windows)
                for key, windows in everything.items()
            }
            groups = {"": list(ious.values())}
            for key, kind in kinds.items():
                groups.setdefault(f" {kind}", []).append(ious[key])
            as_run = {
                f"{name}{group}_of_sets": value
                for group, members in groups.items()
                for name, value in recall_table(members, SET_THRESHOLDS).items()
            }
        elif published and form == "summed":
            table = summed_recall([(spans or [NO_ANSWER], windows) for spans, windows in own])
            as_run = {f"{name}_summed": value for name, value in table.items()}
        elif published:
            as_run = {f"{name}_of_answered": value for name, value in _table(own).items()}
            undefined = sum(_is_undefined(spans, windows[0]) for spans, windows in own)
            if undefined:
                del as_run["mIoU_of_answered"]
                warnings.append(
                    f"the published scorer's mIoU is not a number: it divides 0 by 0 "
                    f"at {undefined} windows without length."
                )
        counts = {
            "queries": len(truth),
            "missing": len(truth.keys() - found.keys()),
            "unknown": len(found.keys() - everything.keys()),
            "duplicates": duplicates,
            "no_answer": sum(not spans or spans[0] == NO_ANSWER for spans in found.values()),
            "reversed": sum(start > end for spans in found.values() for start, end in spans[:1]),
        }
        return Result(cls.name, metrics, counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`nlq_val.json` of Ego4D; the format stays, whole videos are kept or left out."""
        value = source.json("nlq_val.json")
        rows = list(language_queries(value))
        clips = {clip for clip, *_ in rows if keep(clip)}
        wanted = [
            {**video, "clips": [clip for clip in video["clips"] if clip["clip_uid"] in clips]}
            for video in value["videos"]
        ]
        wanted = [video for video in wanted if video["clips"]]
        names = [clip for clip, _, _, item in rows if item.get("query")]
        return Conversion({"nlq_val.json": {**value, "videos": wanted}}, names)


def language_queries(value: Mapping[str, Any]) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Yield clip, annotation, number and content of every query."""
    for video in value["videos"]:
        for clip in video["clips"]:
            for annotation in clip["annotations"]:
                for number, item in enumerate(annotation["language_queries"]):
                    yield clip["clip_uid"], annotation["annotation_uid"], number, item


def key_of(clip: str, annotation: str, number: int) -> str:
    """What a query is known by."""
    return f"{clip} {annotation} {number}"


def _table(pairs: Sequence[tuple[list[Interval], list[Interval]]]) -> dict[str, float]:
    ious = [
        [hull_iou(span, windows[0]) for span in spans[: max(RANKS)]] for spans, windows in pairs
    ]
    total = len(ious)
    table = {
        f"R@{k} IoU>{t}": 100 * sum(any(iou > t for iou in row[:k]) for row in ious) / total
        for t in THRESHOLDS
        for k in RANKS
    }
    return table | {"mIoU": 100 * sum(row[0] if row else 0.0 for row in ious) / total}


def _is_undefined(spans: Sequence[Interval], window: Interval) -> bool:
    return bool(spans) and max(spans[0][1], window[1]) == min(spans[0][0], window[0])


def _rows(path: Path, what: str) -> Any:
    text = read_text(path, what)
    try:
        return json.loads(text)
    except ValueError:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise FileError(f"{path}: neither JSON nor JSON lines ({error}).") from None


def read_predictions(path: Path) -> tuple[dict[str, list[Interval]], int]:
    """Read one of the three forms as query -> intervals in order; count repeated queries.

    Raises:
        FileError: the file is of none of them.
    """
    value = _rows(path, "predictions on Ego4D-NLQ")
    rows = value.get("results") if isinstance(value, dict) else value
    problem = (
        'expected {"results": [{"clip_uid", "annotation_uid", "query_idx", "predicted_times"}]}, '
        'or rows of {"qid", "pred_relevant_windows"} or {"index", "prediction"}'
    )
    expect(isinstance(rows, list) and rows, str(path), f"{problem}.")
    found: dict[str, list[Interval]] = {}
    for place_in_file, row in enumerate(rows, 1):
        place = f"{path}, row {place_in_file}"
        try:
            if "predicted_times" in row:
                key = key_of(row["clip_uid"], row["annotation_uid"], row["query_idx"])
                spans = [interval(one, place) for one in row["predicted_times"]]
            elif "pred_relevant_windows" in row:
                key = str(row["qid"])
                spans = [interval(one[:2], place) for one in row["pred_relevant_windows"]]
            else:
                key, spans = str(row["index"]), signed_pairs(str(row["prediction"] or ""))
        except (KeyError, TypeError) as error:
            raise FileError(f"{place}: {problem} ({error!r}).") from None
        found[key] = spans
    return found, len(rows) - len(found)


def read_ground_truth(path: Path) -> Truth:
    """Read the annotation of Ego4D, of UniTime (a list) or of TimeLens2 (JSON lines).

    Raises:
        FileError: the file is of none of these forms.
    """
    value = _rows(path, "Ego4D-NLQ annotation (nlq_val.json)")
    windows: dict[str, list[Interval]] = {}
    form, kinds = "ranked", {}
    try:
        if isinstance(value, dict):
            for clip, annotation, number, item in language_queries(value):
                window = (item["clip_start_sec"], item["clip_end_sec"])
                windows[key_of(clip, annotation, number)] = [interval(window, str(path))]
        elif "annos" in value[0]:
            form = "summed"
            for row in value:
                spans = row["annos"][0]["window"]
                windows[str(row["qid"])] = [interval(one, str(path)) for one in spans]
        else:
            form = "sets"
            for number, row in enumerate(value):
                windows[str(number)] = [interval(one, str(path)) for one in row["timestamps"]]
                if "query_type" in row:
                    kinds[str(number)] = str(row["query_type"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise FileError(f"{path}: not an Ego4D-NLQ annotation ({error!r}).") from None
    expect(windows, str(path), "it holds no query.")
    return Truth(windows, form, kinds)
