"""TimeLens-Bench: three older sets with corrected queries and windows (Zhang et al., 2512.14698).

The first interval of an answer counts; IoU is overlap over the hull, and R1@t the share with
IoU >= t. The published scorer looks at the rows that are in the file and nowhere else, so a missing
row is no miss, and queries of one video that are equal, with equal windows, count once. The
headline counts every annotated query. The published runner rounds times to whole seconds; ours
does not.

TimeLens2's rows of text (`[{"index", "prediction"}]`, by row of the annotation) are read, too. Its
scorer leaves answers that are empty or say "none" out of the mean (``mIoU_of_texts``) and of the R1
that it prints (``R1@t_of_texts_printed``), though not of the R1 that it saves (``R1@t_of_texts``).

Definitions, prompts and settings: gh:TencentARC/TimeLens, evaluation/compute_metrics.py at 5d90c06;
gh:MCG-NJU/TimeLens2, evaluation/vlmeval/dataset/timelens.py at a5ce450.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from distime.benchmarks.base import Answered, Benchmark, Query
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_json, read_text, write_json
from distime.metrics.intervals import Interval
from distime.metrics.moments import hull_iou, recall_table
from distime.metrics.time_texts import MISSING, clock_then_range
from distime.processing.answers import Event
from distime.values import expect, interval

NOTHING: Interval = (-100.0, -100.0)
"""What the published scorer takes where an answer holds no time."""


class _TimeLens(Benchmark):
    """What the three sets share; predictions are keyed by video, query and window."""

    headline = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    ground_truth_is_optional = True
    owners_prompt = (
        "Please find the visual event described by the sentence '{query}', determining its "
        "starting and ending times. The format should be: 'The event happens in <start time> - "
        "<end time> seconds'."
    )

    def queries(self) -> Iterator[Query]:
        """One query per sentence."""
        try:
            for number, (key, video, sentence, window) in enumerate(rows(self.read_annotation())):
                question = self.moment_question(sentence)
                yield Query(f"{number}", video, question, (key, window), title=sentence)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{"VIDEO.mp4>>>QUERY>>>[S, E]": {"timestamps", "answers", "duration"}}`."""
        results = {
            query.item[0]: {
                "timestamps": [[event.start, event.end] for event in answer.events],
                "answers": answer.readable,
                "duration": answer.duration,
            }
            for query, answer in answered
            if answer is not None
        }
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window."""
        return [Event(*query.item[1])]

    @staticmethod
    def scored_key(query: Query) -> Hashable:
        """The key of its prediction."""
        return query.item[0]

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path | None,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score the owner's format, `.json` or `.jsonl`, against the annotation or its own keys."""
        rows_of_text = read_rows_of_text(predictions)
        if rows_of_text is not None:
            return _score_rows(cls.name, rows_of_text, predictions, ground_truth, published, only)
        found = read_predictions(predictions)
        spans, counts = spans_of(found, predictions)
        own = {key: window_of(key, f"{predictions}, {key}") for key in found}
        warnings = []
        if ground_truth is None:
            pairs = [(spans[key], window) for key, window in own.items()]
            warnings.append("no annotation given: missing queries are not noticed.")
        else:
            truth = read_ground_truth(ground_truth)
            truth = [(key, window) for key, window in truth if only is None or key in only]
            known = {key for key, _ in truth}
            expect(
                not found or known & found.keys(),
                str(predictions),
                f"none of its {len(found)} keys is in {ground_truth}; is this another set?",
            )
            pairs = [(spans.get(key, NOTHING), window) for key, window in truth]
            counts["missing"] = sum(key not in found for key, _ in truth)
            counts["unknown"] = len(found.keys() - known)
            counts["equal_keys"] = len(truth) - len(known)
        expect(pairs, str(predictions), "it holds no query.")
        as_run = {}
        if published and own:
            as_run = recall_table([hull_iou(spans[key], window) for key, window in own.items()])
        counts = {"queries": len(pairs), **counts}
        metrics = recall_table([hull_iou(*pair) for pair in pairs])
        return Result(cls.name, metrics, counts, as_run, tuple(warnings))

    @classmethod
    def convert(cls, source: Source, keep: Keep) -> Conversion:
        """The owner's file; the format stays."""
        name = PurePosixPath(cls.annotation).name
        value = source.json(name)
        videos = [video for video, entry in value.items() for _ in entry["queries"]]
        return Conversion({name: {v: entry for v, entry in value.items() if keep(v)}}, videos)


class TimeLensCharades(_TimeLens):
    """Activities at home."""

    name = "timelens_charades"
    title = "TimeLens-Charades"
    rank = 20
    annotation = "timelens/charades-timelens.json"
    videos = "timelens/charades"
    peers = {
        "TimeLens2-8B": {"mIoU": 58.6},
        "TimeLens2-4B": {"mIoU": 57.7},
        "TimeLens-8B": {"mIoU": 55.2},
        "Gemini-2.5-Pro": {"mIoU": 52.8},
        "Qwen3.5-397B-A17B": {"mIoU": 47.5},
        "Qwen3-VL-8B": {"mIoU": 48.3},
        "Qwen2.5-VL-7B": {"mIoU": 39.3},
    }  # gh:MCG-NJU/TimeLens2, gh:TencentARC/TimeLens


class TimeLensANet(_TimeLens):
    """Longer videos of many kinds."""

    name = "timelens_anet"
    title = "TimeLens-ActivityNet"
    rank = 21
    annotation = "timelens/activitynet-timelens.json"
    videos = "timelens/activitynet"
    peers = {
        "TimeLens2-8B": {"mIoU": 58.6},
        "TimeLens2-4B": {"mIoU": 59.0},
        "TimeLens-8B": {"mIoU": 53.2},
        "Gemini-2.5-Pro": {"mIoU": 58.1},
        "Qwen3.5-397B-A17B": {"mIoU": 53.8},
        "Qwen3-VL-8B": {"mIoU": 46.8},
        "Qwen2.5-VL-7B": {"mIoU": 31.4},
    }  # gh:MCG-NJU/TimeLens2, gh:TencentARC/TimeLens


class TimeLensQVH(_TimeLens):
    """Vlogs and news."""

    name = "timelens_qvh"
    title = "TimeLens-QVHighlights"
    rank = 22
    annotation = "timelens/qvhighlights-timelens.json"
    videos = "timelens/qvhighlights"
    peers = {
        "TimeLens2-8B": {"mIoU": 70.2},
        "TimeLens2-4B": {"mIoU": 69.3},
        "TimeLens-8B": {"mIoU": 65.5},
        "Gemini-2.5-Pro": {"mIoU": 70.4},
        "Qwen3.5-397B-A17B": {"mIoU": 65.8},
        "Qwen3-VL-8B": {"mIoU": 59.4},
        "Qwen2.5-VL-7B": {"mIoU": 31.6},
    }  # gh:MCG-NJU/TimeLens2, gh:TencentARC/TimeLens


def clean(sentence: str) -> str:
    """A query as keys hold it: single blanks, without full stops at either end."""
    return re.sub(r"\s+", " ", sentence).strip().strip(".").strip()


def rows(annotation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[float]]]:
    """Yield key, video, clean query and window of every annotated query."""
    for video, entry in annotation.items():
        for sentence, window in zip(entry["queries"], entry["spans"], strict=True):
            query = clean(sentence)
            yield f"{video}.mp4>>>{query}>>>{window}", video, query, window


def read_ground_truth(path: Path) -> list[tuple[str, Interval]]:
    """Read `{video: {"duration", "spans": [[s, e]], "queries": [text]}}` as keys and windows.

    Raises:
        FileError: the file is not of this form.
    """
    value, _ = read_json(path, "TimeLens-Bench annotation")
    try:
        return [
            (key, interval(window, f"{path}, {video}")) for key, video, _, window in rows(value)
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: not a TimeLens-Bench annotation ({error!r}).") from None


def read_predictions(path: Path) -> dict[str, dict[str, Any]]:
    """Read one object, or JSON lines of objects, the later ones winning.

    Raises:
        FileError: the file is not of this form.
    """
    problem = 'expected {"VIDEO.mp4>>>QUERY>>>[S, E]": {"timestamps": [[s, e]]}}'
    found: dict[str, Any] = {}
    if path.suffix == ".jsonl":
        for number, line in enumerate(read_text(path, "predictions").splitlines(), 1):
            if line.strip():
                try:
                    found |= json.loads(line)
                except (ValueError, TypeError):
                    raise FileError(f"{path}, line {number}: {problem}.") from None
    else:
        found, _ = read_json(path, "predictions on TimeLens-Bench")
    expect(isinstance(found, dict), str(path), f"{problem}.")
    for key, value in found.items():
        fits = isinstance(value, dict) and ("timestamps" in value or "answers" in value)
        expect(fits, f"{path}, {key}", f"{problem}, or with the words in `answers`.")
    return found


def spans_of(found: Mapping[str, dict], path: Path) -> tuple[dict[str, Interval], Counter[str]]:
    """Return the interval of every prediction that counts, and how many were unusual."""
    unusual = ("several", "unread_answers", "reversed", "without_length")
    counts: Counter[str] = Counter(dict.fromkeys(unusual, 0))
    spans = {}
    for key, value in found.items():
        if "timestamps" in value:
            times = value["timestamps"] or []
            expect(isinstance(times, list), f"{path}, {key}", "timestamps is not a list.")
            given = [interval(one, f"{path}, {key}") for one in times[:1]]
            counts["several"] += len(times) > 1
        else:
            given = clock_then_range(str(value["answers"]))
            counts["several"] += len(given) > 1
        counts["unread_answers"] += not given
        spans[key] = given[0] if given else NOTHING
        counts["reversed"] += spans[key][0] > spans[key][1]
        counts["without_length"] += bool(given) and spans[key][0] == spans[key][1]
    return spans, counts


def window_of(key: str, place: str) -> Interval:
    """The true window, which a key ends with.

    Raises:
        FileError: it does not.
    """
    parts = key.split(">>>")
    expect(len(parts) == 3, place, "the key is not VIDEO.mp4>>>QUERY>>>[S, E].")
    try:
        return interval(ast.literal_eval(parts[2]), place)
    except (ValueError, SyntaxError):
        raise FileError(f"{place}: the key does not end with [S, E].") from None


def read_rows_of_text(path: Path) -> dict[int, str] | None:
    """Read TimeLens2's `[{"index", "prediction"}]` as row -> text; None where the file is no list.

    Raises:
        FileError: a row has neither field.
    """
    if path.suffix == ".jsonl":
        return None
    value, _ = read_json(path, "predictions on TimeLens-Bench")
    if not isinstance(value, list):
        return None
    problem = 'expected rows of {"index", "prediction"}; is this another benchmark\'s file?'
    expect(value, str(path), problem)
    for number, row in enumerate(value, 1):
        fits = isinstance(row, dict) and isinstance(row.get("index"), int) and "prediction" in row
        expect(fits, f"{path}, row {number}", problem)
    return {row["index"]: str(row["prediction"] or "") for row in value}


def _score_rows(
    name: str,
    texts: Mapping[int, str],
    path: Path,
    gt_path: Path | None,
    published: bool,
    only: Collection[Hashable] | None,
) -> Result:
    expect(gt_path is not None, str(path), "rows are scored against the annotation; give --gt.")
    truth = read_ground_truth(gt_path)
    rows = {
        number: window for number, (key, window) in enumerate(truth) if only is None or key in only
    }
    expect(rows.keys() & texts.keys(), str(path), f"none of its rows is in {gt_path}.")
    spans = {number: clock_then_range(text)[:1] for number, text in texts.items()}
    ious = {
        number: hull_iou(*(spans.get(number) or [NOTHING]), window)
        for number, window in rows.items()
    }
    metrics = recall_table(list(ious.values()))
    as_run = {}
    if published:
        said = [iou for number, iou in ious.items() if texts.get(number, "") not in MISSING]
        as_run = {f"{metric}_of_texts": value for metric, value in metrics.items()}
        printed = recall_table(said) if said else dict.fromkeys(metrics, 0.0)
        as_run["mIoU_of_texts"] = printed.pop("mIoU")
        as_run |= {f"{metric}_of_texts_printed": value for metric, value in printed.items()}
    counts = {
        "queries": len(rows),
        "missing": len(rows.keys() - texts.keys()),
        "unknown": sum(number not in range(len(truth)) for number in texts),
        "unread_answers": sum(not span for span in spans.values()),
    }
    return Result(name, metrics, counts, as_run)
