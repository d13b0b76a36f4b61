"""E.T. Bench: twelve tasks about time in videos (Liu et al., NeurIPS 2024).

Each task is scored for each of its sources, and its value is the plain mean over them:

- TVG, EPM: the first interval; F1 is the mean of the shares with IoU >= 0.1, 0.3, 0.5, 0.7.
- TEM, GVQ: the same against the best of several intervals; GVQ counts an interval only where the
  option is right as well. Named Rec.
- TAL: all intervals; the mean over thresholds of the F1 of the shares of true and of predicted
  intervals that some other reaches.
- EVS: whole seconds; F1 of the seconds that are marked. The published scorer leaves out answers
  that it cannot read (``EVS_of_read``); here they count 0.
- VHD: the first number lies in a highlight.
- RAR, EVC, RVQ: the right option. The published scorer goes on to similarity of sentences (MiniLM)
  where it finds no right letter; here the option is read by `distime.metrics.choices`.
- DVC, SLC: F1 of the intervals at those thresholds (IoU > t), from mean precision and recall. The
  captions, which the published scorer compares with random strings where nothing fits, are not
  scored here.

IoUs are float32 there and decide ties; they are here, too. A question that is missing is not
answered: 0. Definitions: a stored copy of PolyU-ChenLab/ETBench's compute_metrics.py (CC BY-NC-SA);
the annotation is on the Hugging Face hub.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distime.benchmarks.base import Answered, Benchmark, Query, restricted
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_json, read_text, write_json
from distime.metrics.choices import Options, read_choice
from distime.metrics.dense_captioning import iou_matrix
from distime.metrics.intervals import Interval
from distime.metrics.time_texts import range_then_sentences
from distime.processing.answers import Event
from distime.values import expect, interval

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
LAST_SECOND = 1000

NAMES = {
    "rar": "RAR Acc",
    "eca": "EVC Acc",
    "rvq": "RVQ Acc",
    "tvg": "TVG F1",
    "epm": "EPM F1",
    "tal": "TAL F1",
    "evs": "EVS F1",
    "vhd": "VHD F1",
    "dvc": "DVC F1",
    "slc": "SLC F1",
    "tem": "TEM Rec",
    "gvq": "GVQ Rec",
}
"""Task in the files -> its name in the owner's table, and what is reported of it."""

Key = tuple[str, str, str]
"""(task, source, idx)."""


class Scores(NamedTuple):
    """What one answer is worth; shares in [0, 1]."""

    values: dict[str, float]
    is_read: bool = True


class ETBench(Benchmark):
    """Asked in the owner's words, times written out; answered in words, times written out."""

    name = "etbench"
    title = "ETBench"
    rank = 31
    annotation = "etbench/etbench_vid_v1.0.json"
    videos = "etbench"
    headline = tuple(NAMES.values())

    def queries(self) -> Iterator[Query]:
        """One query per entry, with the times of `src` in place of its `<vid>`."""
        try:
            for item in self.read_annotation():
                times = iter(item.get("src") or ())
                question = re.sub(
                    "<vid>", lambda match, times=times: f"{next(times)} seconds", item["q"]
                )
                key = " ".join(key_of(item))
                yield Query(key, item["video"], question, item, title=question.splitlines()[0])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"task", "source", "idx", "a": text}]`, times as "12.5 - 30.0 seconds"."""
        results = []
        for query, answer in answered:
            if answer is not None:
                pieces = answer.text.split("<TIME_STAMP>")
                spans = [f"{e.start:.1f} - {e.end:.1f} seconds" for e in answer.events]
                text = "".join(
                    a + b for a, b in zip(pieces, [*spans, ""], strict=False)
                )  # one more piece than times
                item = query.item
                row = {name: item[name] for name in ("task", "source", "idx")}
                results.append({**row, "a": text})
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated intervals, where the task is about intervals."""
        return [Event(*span) for span in _spans(query.item)]

    @staticmethod
    def scored_key(query: Query) -> Hashable:
        """Task, source and number."""
        return key_of(query.item)

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score rows with the answer's text in `a`, a list or JSON lines."""
        rows = read_rows(predictions)
        found = {key_of(row): str(row["a"] or "") for row in rows}
        items = restricted(read_ground_truth(ground_truth), only)
        expect(
            items.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} answers is to a question of {ground_truth}.",
        )
        counts: Counter[str] = Counter(
            queries=len(items),
            missing=len(items.keys() - found.keys()),
            unknown=len(found.keys() - items.keys()),
            duplicates=len(rows) - len(found),
        )
        scored: dict[str, dict[str, list[Scores]]] = {}
        for key, item in items.items():
            one = score_answer(found.get(key, ""), item)
            counts["unread_answers"] += not one.is_read
            scored.setdefault(item["task"], {}).setdefault(item["source"], []).append(one)
        metrics = {}
        as_run = {}
        for task, by_source in scored.items():
            tables = {source: _means(task, part) for source, part in by_source.items()}
            for name, value in _mean_of_sources(tables.values()).items():
                metrics[f"{task.upper()} {name}" if name not in _MAIN else NAMES[task]] = value
            for source, table in tables.items() if published else ():
                if task in _EXACT:
                    rounded = {f"{task}/{source}/{n}": round(v / 100, 5) for n, v in table.items()}
                    as_run |= {f"{n}_as_run": 100 * value for n, value in rounded.items()}
            if published and task == "evs":
                for source, part in by_source.items():
                    read = _means(task, [one for one in part if one.is_read] or part)
                    as_run[f"evs/{source}/F1_as_run"] = 100 * round(read["F1"] / 100, 5)
        order = [name for name in NAMES.values() if name in metrics]
        metrics = {name: metrics[name] for name in [*order, *sorted(metrics.keys() - set(order))]}
        warnings = []
        if published:
            warnings.append(
                "no published-as-run values for questions with options and for captions, which the "
                "published scorer compares by a model of sentences."
            )
        return Result(cls.name, metrics, dict(counts), as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`etbench_vid_v1.0.json`; the format stays."""
        items = source.json("etbench_vid_v1.0.json")
        wanted = [item for item in items if keep(item["video"])]
        return Conversion({"etbench_vid_v1.0.json": wanted}, [item["video"] for item in items])


_MAIN = ("F1", "Rec", "Acc")
_EXACT = ("tvg", "epm", "tem", "tal", "vhd", "dvc", "slc")
"""Tasks of which the published scorer's values are given to the last digit."""


def key_of(row: Mapping[str, Any]) -> Key:
    """What a question is known by."""
    return str(row["task"]), str(row["source"]), str(row["idx"])


def score_answer(text: str, item: Mapping[str, Any]) -> Scores:
    """Score the text of one answer."""
    task = item["task"]
    if task in ("rar", "eca", "rvq"):
        place = _choice(text, item)
        return Scores({"Acc": float(place == item["p"])}, place is not None)
    if task == "vhd":
        return _highlight(text, item)
    predicted, truth = range_then_sentences(text), _spans(item)
    is_read = bool(predicted)
    if task in ("tvg", "epm", "tem"):
        best = max((_iou(predicted[0], one) for one in truth), default=0.0) if predicted else 0.0
        return Scores(_shares(float(best), "Rec" if task == "tem" else "F1"), is_read)
    if task == "gvq":
        place = _choice(re.sub(r"\d+\.*\d*\s*(?:-|to)\s*\d+\.*\d*", " ", text), item)
        right = place == item["p"]
        best = _iou(predicted[0], truth[0]) if predicted and right else 0.0
        shares = _shares(float(best), "Rec")
        if not right:
            shares = dict.fromkeys(shares, 0.0)
        return Scores({**shares, "Acc of options": float(right)}, is_read and place is not None)
    if task == "evs":
        return Scores({"F1": _seconds_f1(predicted, truth)}, is_read)
    if task in ("dvc", "slc"):
        predicted = described(text)
        precision, recall = _reached(predicted, truth, above=True)
        table = {f"P@{t}": p for t, p in zip(THRESHOLDS, precision, strict=True)}
        table |= {f"R@{t}": r for t, r in zip(THRESHOLDS, recall, strict=True)}
        return Scores(table, bool(predicted))
    precision, recall = _reached(predicted, truth, above=False)
    f1s = [_f1(p, r) for p, r in zip(precision, recall, strict=True)]
    table = {f"F1@{t}": value for t, value in zip(THRESHOLDS, f1s, strict=True)}
    return Scores(table | {"F1": sum(f1s) / len(f1s)}, is_read)


def described(text: str) -> list[Interval]:
    """Read the intervals of a dense caption, as many as have words.

    ``A - B`` with words between; else "start time: A ... end time: B ... description:"; else one
    line or sentence with two numbers, a clock time or a number, which stands for forty seconds.
    """
    number = r"(\d+\.*\d*)"
    pattern = rf"{number}\s*-\s*{number}"
    words = [one.replace("seconds", "") for one in re.split(pattern.replace("(", "(?:"), text)]
    count = sum(len(one) > 5 for one in words)
    if spans := re.findall(pattern, text)[:count]:
        return [_forwards(*span) for span in spans]
    starts, ends = (
        re.findall(rf"{name}(?:ing)? time: {number}", text, re.IGNORECASE)
        for name in ("start", "end")
    )
    count = len(re.findall("description:", text, re.IGNORECASE))
    if spans := list(zip(starts, ends, strict=False))[:count]:
        return [_forwards(*span) for span in spans]
    for piece in text.split("\n") if "\n" in text else text.split("."):
        if len(piece) > 7 and (span := _in_sentence(piece)):
            return [span]
    return []


def _in_sentence(piece: str) -> Interval | None:
    clocks = re.findall(r"(\d{1,2}):(\d{2})", piece)
    numbers = re.findall(r"\d+", piece)
    if len(clocks) == 1 and len(numbers) == 2:
        time = 60 * int(clocks[0][0]) + int(clocks[0][1])
    elif match := re.search(r"(\d+)\s*-\s*(\d+)", piece):
        return _forwards(*match.groups())
    elif ":" in piece:
        return None
    elif len(numbers) == 2 and not re.search(r"\d second.*\d", piece):
        return _forwards(*numbers)
    elif match := re.search(r"(\d+) seconds?", piece):
        time = int(match[1])
    elif len(numbers) == 1 and len(numbers[0]) > 1:
        time = int(numbers[0])
    else:
        return None
    return (time, time + 40) if time <= 20 else (time - 20, time + 20)


def _forwards(start: str, end: str) -> Interval:
    a, b = (float(re.sub(r"\.+", ".", one)) for one in (start, end))
    return min(a, b), max(a, b)


def _spans(item: Mapping[str, Any]) -> list[Interval]:
    target = item.get("tgt") or []
    if not target:
        return []
    if not isinstance(target[0], list):
        return [tuple(target[:2])] if len(target) > 1 else []
    if target[0] and isinstance(target[0][0], list):
        target = [span for annotator in target for span in annotator]
    return [tuple(span) for span in target]


def _choice(text: str, item: Mapping[str, Any]) -> int | None:
    options = [str(option) for option in item["o"]]
    return read_choice(text, Options("ABCDEFGH"[: len(options)], options))


def _shares(iou: float, name: str) -> dict[str, float]:
    hits = {f"{name if name == 'F1' else 'R'}@{t}": float(iou >= t) for t in THRESHOLDS}
    return {"mIoU": iou, **hits, name: sum(hits.values()) / len(hits)}


def _iou(a: Interval, b: Interval) -> np.float32:
    start, end, low, high = (np.float32(one) for one in (*a, *b))
    common = max(np.float32(0), min(end, high) - max(start, low))
    union = (end - start) + (high - low) - common
    return common / union if union > 0 else np.float32(0)


def _reached(
    predicted: Sequence[Interval], truth: Sequence[Interval], *, above: bool
) -> tuple[list[float], list[float]]:
    """Shares of predicted and of true intervals that some other reaches, for each threshold."""
    if not predicted or not truth:
        return [0.0] * len(THRESHOLDS), [0.0] * len(THRESHOLDS)
    if above:  # those of captions are compared in float64
        table = iou_matrix(np.array(predicted, dtype=float), np.array(truth, dtype=float))
    else:
        table = np.array([[_iou(a, b) for b in truth] for a in predicted])
    best = table.max(axis=1), table.max(axis=0)
    return tuple(
        [float((one > t if above else one >= t).mean()) for t in THRESHOLDS] for one in best
    )


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _seconds_f1(predicted: Sequence[Interval], truth: Sequence[Interval]) -> float:
    marked = []
    for spans in (predicted, truth):
        line = np.zeros(LAST_SECOND, dtype=bool)
        for start, end in spans:
            line[max(0, round(start)) : max(0, round(end))] = True
        marked.append(line)
    said, true = marked
    both = float((said & true).sum())
    precision = both / said.sum() if said.any() else 0.0
    recall = both / true.sum() if true.any() else 0.0
    return float(_f1(precision, recall))


def _highlight(text: str, item: Mapping[str, Any]) -> Scores:
    match = re.search(r"[-+]?\d+(?:\.\d+)?", text)
    if match is None:
        return Scores({"F1": 0.0}, False)
    time = float(match[0])
    return Scores({"F1": float(any(start <= time <= end for start, end in _spans(item)))})


def _means(task: str, part: Sequence[Scores]) -> dict[str, float]:
    """Means over the answers of one source, in percent."""
    table = {n: float(np.mean([one.values[n] for one in part])) for n in part[0].values}
    if task in ("dvc", "slc"):
        f1s = [_f1(table[f"P@{t}"], table[f"R@{t}"]) for t in THRESHOLDS]
        table = {f"F1@{t}": value for t, value in zip(THRESHOLDS, f1s, strict=True)}
        table["F1"] = sum(f1s) / len(f1s)
    return {name: 100 * value for name, value in table.items()}


def _mean_of_sources(tables: Collection[Mapping[str, float]]) -> dict[str, float]:
    names = next(iter(tables))
    return {name: sum(table[name] for table in tables) / len(tables) for name in names}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows `{"task", "source", "idx", "a"}`, a list or JSON lines.

    Raises:
        FileError: the file is not of this form.
    """
    problem = 'expected rows of {"task", "source", "idx", "a"}; is this another benchmark\'s file?'
    if path.suffix == ".jsonl":
        try:
            lines = read_text(path, "answers to E.T. Bench").splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise FileError(f"{path}: {problem} ({error})") from None
    else:
        rows, _ = read_json(path, "answers to E.T. Bench")
    expect(isinstance(rows, list) and rows, str(path), problem)
    for number, row in enumerate(rows, 1):
        fits = isinstance(row, dict) and {"task", "source", "idx", "a"} <= row.keys()
        expect(fits, f"{path}, row {number}", problem)
    return rows


def read_ground_truth(path: Path) -> dict[Key, dict[str, Any]]:
    """Read the owner's annotation by task, source and number.

    Raises:
        FileError: the file is not of this form.
    """
    value, _ = read_json(path, "E.T. Bench annotation")
    problem = "not an E.T. Bench annotation; give etbench_vid_v1.0.json."
    expect(isinstance(value, list) and value, str(path), problem)
    items = {}
    for number, item in enumerate(value, 1):
        place = f"{path}, row {number}"
        fits = isinstance(item, dict) and {"task", "source", "idx"} <= item.keys()
        expect(fits and item["task"] in NAMES, place, problem)
        has_options = item["task"] in ("rar", "eca", "rvq", "gvq")
        expect({"o", "p"} <= item.keys() if has_options else "tgt" in item, place, problem)
        for span in _spans(item):
            interval(span, place)
        items[key_of(item)] = item
    return items
