"""TACoS: when does a sentence happen in a cooking video of minutes? (Regneri et al., 2013)

Of a prediction's windows R1@t takes the first that is listed (IoU >= t, overlap over the hull) and
mAP the first ten by falling score. Sentences repeat within a video, so answers are known by qid. A
query that is missing is a miss; the published scorers stop there, or score the rows there are.

Two scorers are in use. That of Lighthouse and Moment-DETR rounds (``..._rounded``); the latter
also splits by the length of the annotated window (``MR-short-...``; 143 are in no group). That of
UniTime sums overlaps without merging, so that a right answer given twice has an IoU of 2, in
float32, and R1@t is IoU > t over the rows of the file (``..._summed``).

Definitions: gh:line/lighthouse, training/standalone_eval/eval.py at d095eaa (Apache-2.0);
gh:Lzq5/UniTime, eval_metrics.py at d889a71.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distime.benchmarks.base import Answered, Benchmark, Query, restricted
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, unchanged
from distime.files import FileError, json_lines, read_rows, write_text
from distime.metrics.average_precision import interpolated
from distime.metrics.interval_sets import summed_recall
from distime.metrics.intervals import NO_ANSWER, Interval
from distime.metrics.moments import hull_iou, recall_table
from distime.processing.answers import Event
from distime.values import expect, interval, number

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
RANKED_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
"""The same for mAP, as the published scorers count them: their 0.9 is a little less."""
LENGTHS = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
"""Lengths of annotated windows in seconds, (above, up to and including), of Moment-DETR."""
RANKED = 10
"""How many windows of an answer mAP looks at."""


class ListedWindows(NamedTuple):
    """The windows of one answer, as listed and by falling score; seconds."""

    listed: list[Interval]
    ranked: list[Interval]


NOTHING = ListedWindows([NO_ANSWER], [NO_ANSWER])


class Tacos(Benchmark):
    """Every interval of an answer is kept, in its order, with its confidence as score."""

    name = "tacos"
    title = "TACoS"
    rank = 27
    annotation = "tacos/tacos_test_release.jsonl"
    videos = "tacos"
    owners_prompt = (
        "This is a sequence interleaved with timestamps and frames. Your task is to identify the "
        "temporal window (start and end timestamps) when the given query appears.\n"
        "Query:{query}\nAnswer: "
    )  # UniTime's, whose first sentence stands before the frames
    predictions = ("results.jsonl",)
    headline = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP-average")
    peers = {
        "UniTime-Zero (zero-shot)": {"R1@0.3": 50.1, "R1@0.5": 31.5, "mIoU": 33.4},
        "UniTime-Full (fine-tuned)": {"R1@0.3": 66.9, "R1@0.5": 55.1, "mIoU": 50.0},
    }  # UniTime's paper
    official_queries, official_videos = 4001, 25

    def queries(self) -> Iterator[Query]:
        """One query per line."""
        try:
            for _, item in rows_of(self.settings.annotation, "TACoS annotation"):
                question = self.moment_question(item["query"])
                yield Query(str(item["qid"]), item["vid"], question, item, title=item["query"])
        except (KeyError, TypeError, FileError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write JSON lines `{"qid", "pred_relevant_windows": [[s, e, score], ...]}`, seconds."""
        lines = []
        for query, answer in answered:
            if answer is not None:
                windows = [
                    [e.start, e.end, 1.0 if math.isnan(e.confidence) else e.confidence]
                    for e in answer.events
                ]
                line = {"qid": query.id, "pred_relevant_windows": windows or [[*NO_ANSWER, 0.0]]}
                lines.append(line)
        path = out_dir / "results.jsonl"
        write_text(path, json_lines(lines))
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window."""
        return [Event(*window) for window in query.item["relevant_windows"]]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score JSON lines of Moment-DETR's form, or UniTime's list against its annotation."""
        found, counts = read_predictions(predictions)
        everything = read_ground_truth(ground_truth)
        truth = restricted(everything, only)
        expect(
            truth.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} qids is in {ground_truth}; is this another split?",
        )
        counts["missing"] = len(truth.keys() - found.keys())
        counts["unknown"] = len(found.keys() - everything.keys())
        pairs = [(found.get(key, NOTHING), window) for key, window in truth.items()]
        metrics = _table(pairs)
        as_run: dict[str, float] = {}
        warnings = []
        if published and not counts["unknown"]:
            own = [(one, everything[key]) for key, one in found.items()]
            as_run = {f"{name}_summed": value for name, value in summed(own).items()}
        if published and (counts["missing"] or counts["unknown"]):
            warnings.append(
                "no rounded values: the published scorer stops where the queries are not those of "
                "the annotation."
            )
        elif published:
            as_run |= {
                f"{name}_rounded": round(value, 2)
                for name, value in _table(pairs, nan_is_match=True).items()
            }
        counts = {"queries": len(truth), **counts}
        return Result(cls.name, metrics, counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`tacos_test_release.jsonl` of Lighthouse; the format stays."""
        name = "tacos_test_release.jsonl"
        return unchanged(name, list(source.json_lines(name)), itemgetter("vid"), keep)


def _table(
    pairs: Sequence[tuple[ListedWindows, Interval]], *, nan_is_match: bool = False
) -> dict[str, float]:
    """R1, mIoU and mAP in percent, over all and by the length of the annotated window."""
    ious = [hull_iou(one.listed[0], window) for one, window in pairs]
    rows = [
        interpolated(one.ranked[:RANKED], [window], RANKED_THRESHOLDS, nan_is_match=nan_is_match)
        for one, window in pairs
    ]
    table = recall_table(ious, (0.3, *THRESHOLDS)) | _precisions(rows)
    for name, (above, up_to) in LENGTHS.items():
        part = [i for i, (_, (start, end)) in enumerate(pairs) if above < end - start <= up_to]
        if part:
            group = recall_table([ious[i] for i in part], THRESHOLDS)
            del group["mIoU"]
            group |= _precisions([rows[i] for i in part])
            table |= {f"MR-{name}-{key}": value for key, value in group.items()}
    return table


def _precisions(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    means = (100 * np.mean(rows, axis=0)).tolist()
    table = {f"mAP@{t}": value for t, value in zip(THRESHOLDS, means, strict=True)}
    return table | {"mAP-average": sum(means) / len(means)}


def summed(pairs: Sequence[tuple[ListedWindows, Interval]]) -> dict[str, float]:
    """What UniTime's scorer gives, see `summed_recall`."""
    return summed_recall([(one.listed, [window]) for one, window in pairs])


def rows_of(path: Path, what: str) -> list[tuple[str, dict[str, Any]]]:
    """Read JSON lines of objects, or a JSON list of them, each behind its place.

    Raises:
        FileError: the file is neither, or has a row without a qid, or none.
    """
    rows = read_rows(path, what, ("qid",))
    expect(rows, str(path), "it holds no row.")
    return [(f"{path}, {row['qid']}", row) for _, row in rows]


def read_predictions(path: Path) -> tuple[dict[str, ListedWindows], Counter[str]]:
    """Read rows `{"qid", "pred_relevant_windows": [[s, e], ...]}`, with scores or without.

    Raises:
        FileError: the file is not of this form.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("duplicates", "no_answer", "reversed"), 0))
    found: dict[str, ListedWindows] = {}
    for place, row in rows_of(path, "predictions on TACoS"):
        given = row.get("pred_relevant_windows")
        expect(isinstance(given, list), place, "pred_relevant_windows is not [[s, e], ...].")
        listed = [interval(window[:2], place) for window in given]
        counts["duplicates"] += str(row["qid"]) in found
        counts["no_answer"] += not listed or listed[0] == NO_ANSWER
        counts["reversed"] += bool(listed) and listed[0][0] > listed[0][1]
        found[str(row["qid"])] = ListedWindows(listed or [NO_ANSWER], _ranked(given, listed))
    return found, counts


def _ranked(given: Sequence[Sequence[Any]], listed: list[Interval]) -> list[Interval]:
    scores = [number(window[2]) if len(window) > 2 else None for window in given]
    if not listed or None in scores:
        return listed or [NO_ANSWER]
    # The published scorer cuts the list first, and sorts what is left.
    order = sorted(range(min(RANKED, len(listed))), key=lambda place: -scores[place])
    return [listed[place] for place in order]


def read_ground_truth(path: Path) -> dict[str, Interval]:
    """Read rows `{"qid", "relevant_windows": [[s, e]]}`, or UniTime's `{"qid", "annos"}`.

    Raises:
        FileError: the file is not of this form.
    """
    truth = {}
    for place, row in rows_of(path, "TACoS annotation"):
        truth[str(row["qid"])] = interval(_window(row, place), place)
    return truth


def _window(row: Mapping[str, Any], place: str) -> Any:
    try:
        windows = row["relevant_windows"] if "annos" not in row else row["annos"][0]["window"]
        return windows[0]
    except (KeyError, IndexError, TypeError) as error:
        raise FileError(f"{place}: not a TACoS annotation ({error!r}).") from None
