"""OMTG-Bench: find all moments of an event, as often as it happens, or say that it does not.

- C-Acc: the answer has as many intervals as the truth.
- tIoU: IoU of the two sets, each merged. 1 where both are empty.
- tP, tR, tF1 at IoU >= 0.3, 0.5, 0.7 of the best one-to-one matching; 1 where both sets are empty.
- EtF1: C-Acc times the mean of the three tF1, for each query.

All are means over queries, in percent. A query that is missing is a miss, also where nothing
happens. The published scorer (``..._as_run``) knows no missing ones, gives an IoU of 0 to two empty
sets, and its merging lengthens the earliest interval before it is matched, so that [0, 5] and
[3, 8] meet [0, 8] perfectly.

Definitions: gh:open-compass/VLMEvalKit, vlmeval/dataset/omtgbench.py at e8e78f0;
gh:Tangent0308/OMTG. The annotation is on the Hugging Face hub.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Hashable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from distime.benchmarks.base import Answered, Benchmark, Query, restricted
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, table_rows, unchanged
from distime.files import FileError, read_rows, read_text, write_json, write_text
from distime.metrics.interval_sets import merged
from distime.metrics.intervals import Interval, overlap
from distime.metrics.matching import best_pairs, plain_iou
from distime.metrics.time_texts import tagged_or_worded
from distime.processing.answers import Event
from distime.values import expect, interval

THRESHOLDS = (0.3, 0.5, 0.7)
FIELDS = ("index", "video", "question", "answer")
"""Columns of the owner's table."""


class OMTGBench(Benchmark):
    """Every interval of an answer counts."""

    name = "omtg_bench"
    title = "OMTG-Bench"
    rank = 30
    annotation = "omtg_bench/OMTGBench.json"
    videos = "omtg_bench"
    owners_prompt = "{query}"  # the questions are whole prompts
    predictions = ("results.json", "results.tsv")
    headline = ("EtF1", "C-Acc", "tIoU", "tF1@0.3", "tF1@0.5", "tF1@0.7")

    def queries(self) -> Iterator[Query]:
        """One query per row."""
        try:
            for item in read_table(self.settings.annotation):
                question = self.moment_question(item["question"])
                key = str(item["index"])
                yield Query(key, item["video"], question, item, title=item["question"])
        except (KeyError, TypeError, FileError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write the owner's rows with `<time>S - E seconds</time>, ...`; as a table, too."""
        rows = []
        for query, answer in answered:
            if answer is not None:
                spans = [event.ordered for event in answer.events]
                texts = [f"<time>{e.start:.2f} - {e.end:.2f} seconds</time>" for e in spans]
                item = {name: query.item.get(name, "") for name in FIELDS}
                rows.append({**item, "prediction": ", ".join(texts)})
        table = io.StringIO()
        writer = csv.DictWriter(table, [*FIELDS, "prediction"], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(out_dir / "results.tsv", table.getvalue())
        path = out_dir / "results.json"
        write_json(path, rows)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated intervals."""
        return [Event(*span) for span in tagged_or_worded(query.item["answer"])]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score rows `{"index", "prediction"}` against the owner's table, JSON or TSV."""
        rows = read_table(predictions)
        found = {str(row["index"]): spans_of(row, "prediction", predictions) for row in rows}
        everything = {
            str(row["index"]): spans_of(row, "answer", ground_truth)
            for row in read_table(ground_truth)
        }
        truth = restricted(everything, only)
        expect(
            truth.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} rows is in {ground_truth}; is this another benchmark?",
        )
        # Not even right where nothing happens.
        nothing = dict.fromkeys(score_query([], []), 0.0)
        metrics = _means(
            [
                score_query(found[key], spans) if key in found else nothing
                for key, spans in truth.items()
            ]
        )
        as_run = {}
        if published:
            own = [(spans, everything[key]) for key, spans in found.items() if key in everything]
            table = _means([_as_run(*pair) for pair in own])
            as_run = {f"{name}_as_run": value for name, value in table.items()}
        counts = {
            "queries": len(truth),
            "missing": len(truth.keys() - found.keys()),
            "unknown": len(found.keys() - everything.keys()),
            "duplicates": len(rows) - len(found),
            "no_answer": sum(not spans for spans in found.values()),
        }
        return Result(cls.name, metrics, counts, as_run)

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`OMTGBench.tsv` of the owners, written as JSON."""
        items = table_rows(source.find("OMTGBench.tsv"), delimiter="\t")
        rows = [{name: item[name] for name in FIELDS} for item in items]
        return unchanged("OMTGBench.json", rows, itemgetter("video"), keep)


def score_query(predicted: Sequence[Interval], truth: Sequence[Interval]) -> dict[str, float]:
    """Score one answer; intervals in seconds, shares in [0, 1]."""
    both_empty = not predicted and not truth
    iou = 1.0 if both_empty else _iou_of_unions(merged(predicted), merged(truth))
    return {"tIoU": iou, **_matched(predicted, truth)}


def _as_run(predicted: Sequence[Interval], truth: Sequence[Interval]) -> dict[str, float]:
    predicted, truth = ([list(span) for span in part] for part in (predicted, truth))
    iou = _iou_of_unions(_merged_in_place(predicted), _merged_in_place(truth))
    return {"tIoU": iou, **_matched(predicted, truth)}


def _merged_in_place(spans: list[list[float]]) -> list[list[float]]:
    """Merge as the published scorer does: the earliest interval of the list itself grows."""
    joined: list[list[float]] = []
    for span in sorted(spans, key=lambda one: one[0]):
        if joined and span[0] <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], span[1])
        else:
            joined.append(list(span) if joined else span)
    return joined


def _iou_of_unions(first: Sequence[Interval], second: Sequence[Interval]) -> float:
    common = sum(overlap(a, b) for a in first for b in second)
    total = sum(end - start for part in (first, second) for start, end in part) - common
    return common / total if total > 0 else 0.0


def _matched(predicted: Sequence[Interval], truth: Sequence[Interval]) -> dict[str, float]:
    exact = float(len(predicted) == len(truth))
    values = {"C-Acc": exact}
    if predicted and truth:
        table = [[plain_iou(a, b) for b in truth] for a in predicted]
        ious = [table[row][column] for row, column in best_pairs(table)]
    f1s = []
    for t in THRESHOLDS:
        if predicted and truth:
            hits = sum(iou >= t for iou in ious)
            precision, recall = hits / len(predicted), hits / len(truth)
        else:
            precision = recall = exact
        both = precision + recall
        f1s.append(2 * precision * recall / both if both else 0.0)
        values |= {f"tP@{t}": precision, f"tR@{t}": recall, f"tF1@{t}": f1s[-1]}
    return values | {"EtF1": exact * sum(f1s) / len(f1s)}


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: 100 * sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def spans_of(row: dict[str, Any], field: str, path: Path) -> list[Interval]:
    """Return the intervals of a row: read from its text, or a list as it stands.

    Raises:
        FileError: the row has no such field, or its list is none of intervals.
    """
    place = f"{path}, index {row['index']}"
    expect(field in row, place, f"it has no {field}; is this another benchmark's file?")
    if isinstance(row[field], list):
        return [interval(one, place) for one in row[field]]
    return tagged_or_worded(str(row[field] or ""))


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read rows with an `index`: a JSON list, JSON lines or tab-separated values.

    Raises:
        FileError: the file is none of these.
    """
    what = "rows of OMTG-Bench"
    if path.suffix == ".tsv":
        rows = list(csv.DictReader(io.StringIO(read_text(path, what)), delimiter="\t"))
        expect(rows and "index" in rows[0], str(path), f"it has no column index; give {what}.")
        return rows
    rows = [row for _, row in read_rows(path, what, ("index",))]
    expect(rows, str(path), f"it holds no row; give {what}.")
    return rows
