"""MomentSeeker: when, in long videos, does what a query describes happen? Answers are sets.

Predicted starts are rounded down and ends up to whole seconds, predicted intervals merged; R1@t is
the share of queries whose IoU of sets is >= t. A query that is missing is answered by nothing. The
scorer is that of TimeLens2: MomentSeeker's owners rank candidate clips, which is another task.

Definitions: gh:MCG-NJU/TimeLens2, evaluation/vlmeval/dataset/moment_seeker.py at a5ce450;
gh:yhy-2000/MomentSeeker at cc1090a (the annotation is on the Hugging Face hub).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from distime.benchmarks.base import Answered, Benchmark, Query
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, unchanged
from distime.files import FileError, read_json, read_rows, write_json
from distime.metrics.interval_sets import set_iou, whole_seconds
from distime.metrics.intervals import Interval
from distime.metrics.moments import recall_table
from distime.metrics.time_texts import signed_pairs
from distime.processing.answers import Event
from distime.values import expect, interval


class MomentSeeker(Benchmark):
    """Every interval of an answer counts. Queries with a picture or a clip are asked in words."""

    name = "momentseeker"
    title = "MomentSeeker"
    rank = 28
    annotation = "momentseeker/t2v.json"
    videos = "momentseeker"
    owners_prompt = (
        'You are given a video.\nTask: temporal grounding.\nGiven the query: "{query}", return '
        "ALL time spans (in seconds) where the query is grounded in the video.\nOutput format "
        "MUST be a JSON array of [start, end] pairs, e.g. [[0, 3.5], [10, 12]].\n"
    )  # TimeLens2's
    headline = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    peers = {"TimeLens2-8B": {"mIoU": 28.5}, "TimeLens2-4B": {"mIoU": 27.9}}  # gh:MCG-NJU/TimeLens2

    def queries(self) -> Iterator[Query]:
        """One query per row that has an interval."""
        try:
            for number, item in enumerate(answerable(self.read_annotation())):
                question = self.moment_question(item["qry_text"])
                yield Query(str(number), video_of(item), question, item, title=item["qry_text"])
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"index", "prediction": "[[s, e], ...]"}]`, seconds."""
        results = [
            {
                "index": int(query.id),
                "prediction": str([[round(e.start, 2), round(e.end, 2)] for e in answer.events]),
            }
            for query, answer in answered
            if answer is not None
        ]
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated intervals."""
        return [Event(*window) for window in query.item["answering_time_interval"]]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score `[{"index", "prediction"}]`, by row number of `t2v.json`."""
        found, duplicates = read_predictions(predictions)
        value, _ = read_json(ground_truth, "MomentSeeker annotation (t2v.json)")
        truth = read_ground_truth(value, ground_truth)
        expect(
            not found or truth.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} rows is in {ground_truth}; is this another benchmark?",
        )
        unknown = len(found.keys() - truth.keys())
        rows = {key: one for key, one in truth.items() if only is None or key in only}
        expect(rows, str(ground_truth), "it holds no query.")
        ious = {
            key: set_iou(whole_seconds(found.get(key, [])), windows)
            for key, (_, windows) in rows.items()
        }
        metrics = recall_table(list(ious.values()))
        for task in dict.fromkeys(task for task, _ in rows.values()):
            part = [iou for key, iou in ious.items() if rows[key][0] == task]
            metrics |= {f"{name} {task}": value for name, value in recall_table(part).items()}
        counts = {
            "queries": len(rows),
            "missing": len(rows.keys() - found.keys()),
            "unknown": unknown,
            "duplicates": duplicates,
            "no_answer": sum(not spans for spans in found.values()),
            "reversed": sum(start > end for spans in found.values() for start, end in spans),
        }
        # The scorer counts every annotated row, so it gives the same.
        as_run = {f"{name}_of_sets": value for name, value in metrics.items()} if published else {}
        return Result(cls.name, metrics, counts, as_run)

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`t2v.json`; the format stays, rows without an interval are left out."""
        return unchanged("t2v.json", answerable(source.json("t2v.json")), video_of, keep)


def video_of(item: Mapping[str, Any]) -> str:
    """The video's file, without its folders."""
    return PurePosixPath(item["src_video_path"]).name


def answerable(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that have an interval; they are numbered without the others."""
    return [item for item in items if item["answering_time_interval"]]


def read_ground_truth(value: Any, path: Path) -> dict[str, tuple[str, list[Interval]]]:
    """Return row number -> task and intervals.

    Raises:
        FileError: it is of another form.
    """
    try:
        return {
            str(number): (
                str(item["task"]),
                [interval(one, f"{path}, {number}") for one in item["answering_time_interval"]],
            )
            for number, item in enumerate(answerable(value))
        }
    except (KeyError, TypeError) as error:
        raise FileError(f"{path}: not a MomentSeeker annotation ({error!r}).") from None


def read_predictions(path: Path) -> tuple[dict[str, list[Interval]], int]:
    """Read `[{"index", "prediction"}]`, a text or a list of intervals; count repeated rows.

    Raises:
        FileError: the file is not of this form.
    """
    rows = read_rows(path, "predictions on MomentSeeker", ("index", "prediction"))
    found: dict[str, list[Interval]] = {}
    for place, row in rows:
        given = row["prediction"]
        if isinstance(given, list):
            spans = [interval(one, place) for one in given]
        else:
            spans = signed_pairs(str(given or ""))
        found[str(row["index"])] = spans
    return found, len(rows) - len(found)
