"""VUE-TR and VUE-TR-V2: when is something seen or heard in videos of seconds to hours, how often?

An answer is a set of intervals. Predicted starts are rounded down and ends up to whole seconds. The
headline is the area under the share of queries whose IoU, precision or recall reaches a threshold,
as it runs from 0 to 1 (IoU must exceed it, so a perfect file gives 99.5). A query that is missing
counts as answered by nothing; predicted intervals are sorted and merged.

The published scorer leaves missing queries out, counts repeated ones twice, and takes the precision
and recall of lists as they come: unsorted or doubled intervals there give recalls above 1.

TimeLens2 scores the queries about what is seen alone (``..._of_vision``).

Definitions: gh:bytedance/vidi, VUE_TR_V2/qa_eval.py at fc30c87 (annotations CC BY-NC 4.0);
gh:MCG-NJU/TimeLens2, evaluation/vlmeval/dataset/vidi_vue_tr.py at a5ce450.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from distime.benchmarks.base import Answered, Benchmark, Query
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, unchanged
from distime.files import read_rows, write_json
from distime.metrics.interval_sets import area, merged, precision_recall, set_iou, whole_seconds
from distime.metrics.intervals import Interval
from distime.metrics.moments import recall_table
from distime.metrics.time_texts import signed_pairs
from distime.processing.answers import Event
from distime.values import expect, interval

GROUPS = ("duration_category", "query_format", "query_modality")
"""Attributes that scores are given by."""


class Scored(NamedTuple):
    """What one query counts; None where there is no length to divide by."""

    iou: float
    precision: float | None
    recall: float | None


class _VueTr(Benchmark):
    """What both versions share."""

    headline = ("IoU", "Precision", "Recall")
    owners_prompt = (
        'You are given a video.\nTask: temporal retrieval.\nGiven the query: "{query}", return '
        "ALL time spans (in seconds) where the query is relevant.\nOutput format MUST be a JSON "
        "array of [start, end] pairs, e.g. [[0, 3.5], [10, 12]].\n"
    )  # TimeLens2's; the owners publish none

    def queries(self) -> Iterator[Query]:
        """One query per entry."""
        try:
            for item in self.read_annotation():
                question = self.moment_question(item["query"])
                title = item["query"]
                yield Query(str(item["query_id"]), item["video_id"], question, item, title=title)
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"query_id", "answer": [[s, e], ...]}]`, seconds, sorted and merged."""
        results = []
        for query, answer in answered:
            if answer is not None:
                spans = merged([(e.ordered.start, e.ordered.end) for e in answer.events])
                spans = [[start, end] for start, end in spans]
                results.append({"query_id": query.item["query_id"], "answer": spans})
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated intervals."""
        return [Event(*window) for window in query.item["gt"]]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score the owner's format, a list or JSON lines, against the owner's annotation."""
        found, is_text = read_predictions(predictions)
        items = [
            item
            for item in read_ground_truth(ground_truth)
            if only is None or str(item["query_id"]) in only
        ]
        answers: dict[str, list[Interval]] = {}
        for key, spans in found:
            answers.setdefault(key, spans)
        known = {str(item["query_id"]) for item in items}
        expect(
            not answers or known & answers.keys(),
            str(predictions),
            f"none of its {len(answers)} queries is in {ground_truth}; is this another version?",
        )
        scored = [
            (item, score_query(merged(answers.get(str(item["query_id"]), [])), item["gt"]))
            for item in items
        ]
        metrics = areas(scored)
        counts = {
            "queries": len(items),
            "missing": len(known - answers.keys()),
            "unknown": len(answers.keys() - known),
            "duplicates": len(found) - len(answers),
            "no_answer": sum(not spans for spans in answers.values()),
            "reversed": sum(start > end for spans in answers.values() for start, end in spans),
        }
        as_run: dict[str, float] = {}
        warnings = []
        if published and counts["unknown"]:
            warnings.append(
                "no published-as-run values: the published scorer stops at unknown ids."
            )
        elif published and is_text:
            as_run = {
                f"{name}_of_vision": value for name, value in vision_table(answers, items).items()
            }
        elif published and found:
            by_key = {str(item["query_id"]): item for item in items}
            rows = [(by_key[key], score_query(spans, by_key[key]["gt"])) for key, spans in found]
            as_run = {f"{name}_as_listed": value for name, value in areas(rows).items()}
        return Result(cls.name, metrics, counts, as_run, tuple(warnings))

    @classmethod
    def convert(cls, source: Source, keep: Keep) -> Conversion:
        """The owner's file; the format stays."""
        name = PurePosixPath(cls.annotation).name
        return unchanged(name, source.json(name), itemgetter("video_id"), keep)


class VueTrV2(_VueTr):
    """1,600 queries about 847 videos."""

    name = "vue_tr_v2"
    title = "VUE-TR-V2"
    rank = 24
    annotation = "vue_tr_v2/VUE-TRv2_ground_truth.json"
    videos = "vue_tr_v2"
    official_queries, official_videos = 1600, 847
    peers = {
        "Vidi2": {"IoU": 48.75, "Precision": 62.45, "Recall": 64.93},
        "Gemini-3-Pro": {"IoU": 37.58, "Precision": 48.61, "Recall": 56.30},
        "GPT-5": {"IoU": 17.15, "Precision": 29.64, "Recall": 26.63},
    }  # gh:bytedance/vidi


class VueTr(_VueTr):
    """The first version."""

    name = "vue_tr"
    title = "VUE-TR"
    rank = 25
    annotation = "vue_tr/VUE-TR_ground_truth.json"
    videos = "vue_tr"


def score_query(predicted: Sequence[Interval], truth: Sequence[Interval]) -> Scored:
    """Score one answer; times in seconds."""
    predicted, truth = whole_seconds(predicted), [tuple(one) for one in truth]
    precision, recall = precision_recall(predicted, truth)
    if precision is None and not truth:
        precision = 1.0
    return Scored(set_iou(predicted, truth), precision, recall)


def areas(scored: Sequence[tuple[Mapping[str, Any], Scored]]) -> dict[str, float]:
    """Return the areas in percent, over all and by group."""
    groups = {"": [one for _, one in scored]}
    for attribute in GROUPS:
        for value in dict.fromkeys(item[attribute] for item, _ in scored):
            groups[f" {value}"] = [one for item, one in scored if item[attribute] == value]
    table = {}
    for group, members in groups.items():
        for name, field in (("IoU", "iou"), ("Precision", "precision"), ("Recall", "recall")):
            values = [getattr(one, field) for one in members]
            value = area([one for one in values if one is not None], above=field == "iou")
            table[f"{name}{group}"] = 0.0 if math.isnan(value) else 100 * value
        table[f"mIoU{group}"] = 100 * sum(one.iou for one in members) / len(members)
    return table


def vision_table(
    answers: Mapping[str, list[Interval]], items: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """What TimeLens2's scorer gives: queries about what is seen alone, lists sorted, not merged."""
    scored = []
    for item in items:
        if item["query_modality"] == "vision":
            truth = sorted(tuple(one) for one in item["gt"])
            predicted = whole_seconds(answers.get(str(item["query_id"]), []))
            predicted = sorted(tuple(sorted(one)) for one in predicted)
            shares = precision_recall(predicted, truth)
            own = whole_seconds(answers.get(str(item["query_id"]), []))
            scored.append((item, Scored(set_iou(own, truth), *shares)))
    table = areas(scored)
    groups = {"": scored}
    for attribute in GROUPS[:2]:
        for value in dict.fromkeys(item[attribute] for item, _ in scored):
            groups[f" {value}"] = [one for one in scored if one[0][attribute] == value]
    for group, members in groups.items():
        recall = recall_table([one.iou for _, one in members])
        table |= {f"{name}{group}": value for name, value in recall.items()}
    return table


def read_predictions(path: Path) -> tuple[list[tuple[str, list[Interval]]], bool]:
    """Read `[{"query_id", "answer": [[s, e], ...]}]`, a list or JSON lines.

    Or TimeLens2's rows of text, `[{"index", "prediction"}]`.

    Returns:
        The answers in the order of the file, and whether they were read from texts.

    Raises:
        FileError: the file is not of this form.
    """
    problem = 'expected [{"query_id", "answer": [[s, e], ...]}]; is this another benchmark\'s file?'
    rows = read_rows(path, "predictions")
    found = []
    is_text = bool(rows) and "prediction" in rows[0][1]
    for place, row in rows:
        if is_text:
            expect({"index", "prediction"} <= row.keys(), place, problem)
            found.append((str(row["index"]), signed_pairs(str(row["prediction"] or ""))))
            continue
        expect(isinstance(row.get("answer"), list), place, problem)
        key = row.get("query_id", row.get("id"))
        expect(key is not None, place, problem)
        found.append((str(key), [interval(one, place) for one in row["answer"] if one != []]))
    return found, is_text


def read_ground_truth(path: Path) -> list[dict[str, Any]]:
    """Read the owner's annotation.

    Raises:
        FileError: the file is not of this form.
    """
    rows = read_rows(path, "VUE-TR annotation", {"query_id", "gt", *GROUPS})
    expect(rows, str(path), "not a VUE-TR annotation.")
    for place, item in rows:
        for window in item["gt"]:
            interval(window, place)
    return [item for _, item in rows]
