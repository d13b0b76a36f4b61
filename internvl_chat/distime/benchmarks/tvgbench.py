"""TVGBench: 800 queries of eleven kinds about videos of five sets (Wang et al., Time-R1).

IoU is overlap over the hull, and R1@t the share whose IoU *exceeds* t. Eleven annotated windows
have no length: nothing can overlap them, and the published scorer divides 0 by 0 where the hull has
no length either, which makes its mean not-a-number. The headline counts that as 0, and a query that
is missing as a miss; the published scorer knows no query that is not in the file.

Definitions: gh:xiaomi-research/time-r1, src/vllm_inference/eval_all.py at 7f2b594 (Apache-2.0).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Query,
    restricted,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, unchanged
from distime.files import FileError, json_lines, read_json, read_rows, write_text
from distime.metrics.intervals import Interval
from distime.metrics.moments import hull_iou, recall_table
from distime.metrics.time_texts import last_range_in_words
from distime.processing.answers import Event
from distime.values import expect, interval


class TableRow(NamedTuple):
    """One answered query; times in seconds, None where the answer names none."""

    predicted: Interval | None
    target: Interval


class TVGBench(Benchmark):
    """The first interval of an answer counts."""

    name = "tvgbench"
    title = "TVGBench"
    rank = 23
    annotation = "tvgbench/tvgbench.json"
    videos = "tvgbench"
    predictions = ("results.jsonl",)
    ground_truth_is_optional = True
    owners_prompt = (
        'To accurately pinpoint the event "{query}" in the video, determine the precise time '
        "period of the event.\n\nProvide the start and end times (in seconds, precise to two "
        'decimal places) in the format "start time to end time" within the <answer> </answer> '
        'tags. For example: "12.54 to 17.83".'
    )
    headline = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    peers = {"Time-R1": {"R1@0.3": 41.8, "R1@0.5": 29.4, "R1@0.7": 16.4}}  # its repository
    official_queries = 800

    def queries(self) -> Iterator[Query]:
        """One query per row; the crop that some rows have is shown alone."""
        try:
            for key, item in keyed(self.read_annotation()):
                crop = (item["start"], item["end"])
                bound = None if None in crop else crop
                question = self.moment_question(item["question"])
                yield Query(key, video_of(item), question, item, bound, title=item["question"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write JSON lines `{"qid", "pred": [s, e], "target", "duration", "output_text"}`."""
        lines = []
        for query, answer in answered:
            if answer is not None:
                first = answer.events[:1]
                # Frames of a crop keep their times in the whole video; the truth counts from it.
                begin = query.bound[0] if query.bound else 0.0
                line = {
                    "qid": query.id,
                    "pred": [first[0].start - begin, first[0].end - begin] if first else [None] * 2,
                    "target": list(window_of(query.item)),
                    "duration": query.item["duration"],
                    "output_text": answer.readable,
                }
                lines.append(line)
        path = out_dir / "results.jsonl"
        write_text(path, json_lines(lines))
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window."""
        begin = query.bound[0] if query.bound else 0.0
        start, end = window_of(query.item)
        return [Event(begin + start, begin + end)]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path | None,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score the owner's rows against the annotation, or against their own `target`."""
        found, counts = read_predictions(predictions)
        warnings = []
        if ground_truth is None:
            pairs = list(found.values())
            warnings.append("no annotation given: missing queries are not noticed.")
        else:
            items, _ = read_json(ground_truth, "TVGBench annotation")
            pairs = _against(found, items, counts, predictions, ground_truth, only)
        expect(pairs, str(predictions), "it holds no query.")
        counts = {"queries": len(pairs), **counts}
        counts["targets_without_length"] = sum(row.target[0] == row.target[1] for row in pairs)
        as_run = {}
        if published and found:
            own = list(found.values())
            as_run = _table(own)
            undefined = sum(_is_undefined(row) for row in own)
            if undefined:
                del as_run["mIoU"], as_run["average"]
                warnings.append(
                    f"the published scorer's mIoU is not a number: it divides 0 by 0 "
                    f"at {undefined} windows without length."
                )
        return Result(cls.name, _table(pairs), counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`tvgbench.json`; the format stays."""
        items = source.json("tvgbench.json")
        return unchanged("tvgbench.json", items, video_of, keep)


def video_of(item: Mapping[str, Any]) -> str:
    """The video's file, without its folders."""
    return PurePosixPath(item["path"]).name


def keyed(items: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every row with its qid: the source file's stem and a running number."""
    for number, item in enumerate(items):
        stem = re.sub(r"[.-]", "_", PurePosixPath(item["source"]).stem)
        yield f"{stem}_{number}", item


def window_of(item: Mapping[str, Any]) -> Interval:
    """The annotated window, in seconds."""
    start, end = map(float, item["answer"].split("-"))
    return start, end


def _against(
    found: Mapping[str, TableRow],
    items: list[dict[str, Any]],
    counts: Counter[str],
    path: Path,
    gt_path: Path,
    only: Collection[Hashable] | None,
) -> list[TableRow]:
    try:
        truth = restricted({key: window_of(item) for key, item in keyed(items)}, only)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileError(f"{gt_path}: not a TVGBench annotation ({error!r}).") from None
    expect(
        not found or truth.keys() & found.keys(),
        str(path),
        f"none of its {len(found)} qids is in {gt_path}; are these of another benchmark?",
    )
    counts["missing"] = len(truth.keys() - found.keys())
    counts["unknown"] = len(found.keys() - truth.keys())
    counts["target_differs"] = sum(
        key in found and found[key].target != window for key, window in truth.items()
    )
    nothing = TableRow(None, (0.0, 0.0))
    return [found.get(key, nothing)._replace(target=window) for key, window in truth.items()]


def _table(rows: list[TableRow]) -> dict[str, float]:
    ious = [0.0 if row.predicted is None else hull_iou(*row) for row in rows]
    table = recall_table(ious, above=True)
    return table | {"average": sum(table.values()) / len(table)}


def _is_undefined(row: TableRow) -> bool:
    if row.predicted is None:
        return False
    (start, end), (true_start, true_end) = row
    return max(end, true_end) == min(start, true_start)


def read_predictions(path: Path) -> tuple[dict[str, TableRow], Counter[str]]:
    """Read JSON lines `{"qid", "pred": [s, e], "target": [s, e]}`; the last one of a qid counts.

    Without ``pred`` the times are read from ``output_text``.

    Raises:
        FileError: the file is not of this form.
    """
    problem = 'expected {"qid", "pred": [s, e], "target": [s, e]}; is this another benchmark\'s?'
    counts: Counter[str] = Counter(dict.fromkeys(("duplicates", "no_answer", "reversed"), 0))
    found: dict[str, TableRow] = {}
    for place, row in read_rows(path, "predictions on TVGBench", ("qid", "target")):
        key, target = str(row["qid"]), interval(row["target"], place)
        expect("pred" in row or isinstance(row.get("output_text"), str), place, problem)
        given = row["pred"] if "pred" in row else _first(row["output_text"])
        expect(isinstance(given, list | tuple), place, problem)
        predicted = None if None in given else interval(given, place)
        counts["duplicates"] += key in found
        found[key] = TableRow(predicted, target)
    for row in found.values():
        counts["no_answer"] += row.predicted is None
        counts["reversed"] += row.predicted is not None and row.predicted[0] > row.predicted[1]
    expect(found, str(path), problem)
    return found, counts


def _first(text: str) -> Interval | tuple[None, None]:
    read = last_range_in_words(text)
    return read[0] if read else (None, None)
