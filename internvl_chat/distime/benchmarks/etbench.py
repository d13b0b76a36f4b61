"""E.T. Bench: twelve tasks about time in videos (Liu et al., NeurIPS 2024).

Each task is scored for each of its sources, and its value is the plain mean over them:

- TVG, EPM: the first interval; F1 is the mean of the shares with IoU >= 0.1, 0.3, 0.5, 0.7.
- TEM: the same against the best of several true intervals, named Rec. GVQ: likewise, where the
  right option is named as well.
- TAL: all intervals; for each threshold the F1 of the shares of true and of predicted intervals
  that some other reaches, mean over answers, then over thresholds.
- EVS: F1 of the whole seconds that are marked.
- VHD: the first number lies in a highlight.
- RAR, EVC, RVQ: the right option.
- DVC, SLC: F1 of the intervals at those thresholds (IoU > t) from mean precision and recall, and
  BLEU, METEOR, ROUGE-L and CIDEr of all pairs with IoU >= t (which needs Java).

An answer that is missing or cannot be read has 0. The published scorer leaves answers out of EVS
and of the captions that it cannot read, cuts EVS at 1,000 s, takes of several answers about one
video in DVC and SLC the last, rounds to five decimals, and knows no missing answers; what it gives
stands beside, by source. Where an answer names no letter it takes the option whose embedding by a
sentence model (MiniLM) is nearest; here options are read by `distime.metrics.choices`, and it has
no as-run value for that source. SentSim of captions takes the same model, and random strings that
nobody can repeat: it is left out.

IoUs but those of captions are in float32, which decides ties. Definitions: a stored copy of
PolyU-ChenLab/ETBench's compute_metrics.py (CC BY-NC-SA 4.0); where copies differ, a letter in
brackets is final. The annotation is on the Hugging Face hub.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distime.benchmarks.base import Answered, Benchmark, Query, captioned_events, restricted
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import FileError, read_rows, write_json
from distime.metrics import ptb
from distime.metrics.choices import Options, read_choice
from distime.metrics.dense_captioning import (
    Events,
    Video,
    bleu_and_rouge,
    caption_scores,
    f1,
    iou_matrix,
    localisation,
)
from distime.metrics.intervals import Interval
from distime.metrics.meteor import Aligner
from distime.metrics.time_texts import ascending_ranges, captioned_ranges, first_number
from distime.model.tokens import TIME_STAMP
from distime.processing.answers import Answer, Event
from distime.values import expect, interval

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
LAST_SECOND = 1000
"""Where the published scorer's EVS ends."""

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


CHOICES = ("rar", "eca", "rvq", "gvq")
"""Tasks with options."""
LETTERS = "ABCDE"


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
                question = item["q"]
                for time in (item.get("src") or ())[: question.count("<vid>")]:
                    question = question.replace("<vid>", f"{time} seconds", 1)
                key = " ".join(key_of(item))
                yield Query(key, item["video"], question, item, title=question.splitlines()[0])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write the owner's rows with the answer in `a`, times as "12.50 - 30.00 seconds"."""
        rows = [
            {**query.item, "a": answer_in_words(query.item["task"], answer)}
            for query, answer in answered
            if answer is not None
        ]
        path = out_dir / "results.json"
        write_json(path, rows)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated intervals, where the task is about intervals."""
        return [Event(*span) for span in spans_of(query.item)]

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
        rows = read_predictions(predictions)
        found = dict(rows)
        everything = read_ground_truth(ground_truth)
        items = restricted(everything, only)
        expect(
            items.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} answers is to a question of {ground_truth}.",
        )
        asked = grouped((item, found.get(key, "")) for key, item in items.items())
        given = grouped((everything[key], text) for key, text in rows if key in everything)
        metrics, unread = _headline(asked)
        as_run, needing = _as_run(given) if published else ({}, 0)
        warnings = []
        if needing:
            warnings.append(
                f"no published-as-run values where options are compared by a model of sentences "
                f"({needing} answers); SentSim of captions, which takes the same, is left out."
            )
        try:
            captions = _captions(asked, given if published else {})
        except FileError as error:
            warnings.append(f"the captions of dvc and slc are not scored: {error}")
        else:
            metrics |= captions[0]
            as_run |= captions[1]
        counts = {
            "queries": len(items),
            "missing": len(items.keys() - found.keys()),
            "unknown": len(found.keys() - everything.keys()),
            "duplicates": len(rows) - len(found),
            "unread_answers": unread,
        }
        return Result(cls.name, metrics, counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`etbench_vid_v1.0.json`; the format stays."""
        items = source.json("etbench_vid_v1.0.json")
        wanted = [item for item in items if keep(item["video"])]
        return Conversion({"etbench_vid_v1.0.json": wanted}, [item["video"] for item in items])


def answer_in_words(task: str, answer: Answer) -> str:
    """Return the answer as the task's reader wants it: words, and times in seconds."""
    if task == "vhd" and answer.events:
        first = answer.events[0]
        return f"{(first.start + first.end) / 2:.2f}"
    if task in ("dvc", "slc"):
        return "\n".join(
            f"{e.start:.2f} - {e.end:.2f} seconds, {' '.join(e.text.split())}"
            for e in captioned_events(answer)
        )
    pieces = answer.text.split(TIME_STAMP)
    spans = [f"{e.start:.2f} - {e.end:.2f} seconds" for e in answer.events]
    spans += [TIME_STAMP] * (len(pieces) - 1 - len(spans))
    return "".join(a + b for a, b in zip(pieces, [*spans, ""], strict=False))


Rows = Sequence[tuple[Mapping[str, Any], str]]
"""Questions of one task and source, each with the text of its answer."""


def key_of(row: Mapping[str, Any]) -> Key:
    """What a question is known by."""
    return str(row["task"]), str(row["source"]), str(row["idx"])


def grouped(rows: Iterable[tuple[Mapping[str, Any], str]]) -> dict[tuple[str, str], Rows]:
    """Questions and answers by task and source, tasks in the order of the owner's table."""
    groups: dict[tuple[str, str], list[tuple[Mapping[str, Any], str]]] = {}
    for item, text in rows:
        groups.setdefault((item["task"], item["source"]), []).append((item, text))
    order = list(NAMES)
    return dict(sorted(groups.items(), key=lambda one: order.index(one[0][0])))


def _headline(groups: Mapping[tuple[str, str], Rows]) -> tuple[dict[str, float], int]:
    """Means over sources in percent, and how many answers could not be read."""
    tables: dict[str, list[dict[str, float]]] = {}
    unread = 0
    for (task, _), rows in groups.items():
        table, failed = score_group(task, rows)
        unread += failed
        tables.setdefault(task, []).append(table)
    return _over_sources(tables), unread


def _over_sources(tables: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    main, others = {}, {}
    for task, parts in tables.items():
        shown, wanted = NAMES[task].split()
        for name in parts[0]:
            value = 100 * sum(part[name] for part in parts) / len(parts)
            (main if name == wanted else others)[f"{shown} {name}"] = value
    return main | others


def _as_run(groups: Mapping[tuple[str, str], Rows]) -> tuple[dict[str, float], int]:
    """What the published scorer gives to each source, and how many answers keep it from that."""
    table, needing = {}, 0
    for (task, source), rows in groups.items():
        if task in CHOICES:
            undecided = sum(
                chosen_letter(task, text, len(item["o"])) is None for item, text in rows
            )
            needing += undecided
            if undecided:
                continue
        for name, value in score_group(task, rows, published=True)[0].items():
            table[f"{task}/{source}/{name}_as_run"] = 100 * round(value, 5)
    return table, needing


def score_group(task: str, rows: Rows, *, published: bool = False) -> tuple[dict[str, float], int]:
    """Score one task and source in [0, 1]; also return how many answers could not be read.

    Args:
        task: as in the files.
        rows: questions and answers.
        published: with the defects of the published scorer.
    """
    if task in ("dvc", "slc"):
        return _described(rows, published)
    if task == "vhd":
        times = [first_number(text) for _, text in rows]
        hits = [
            time is not None and any(start <= time <= end for start, end in spans_of(item))
            for time, (item, _) in zip(times, rows, strict=True)
        ]
        return {"F1": sum(hits) / len(hits)}, times.count(None)
    if task in CHOICES:
        places = [_chosen(task, text, item, published) for item, text in rows]
        right = [place == item["p"] for place, (item, _) in zip(places, rows, strict=True)]
        accuracy = {"Acc": sum(right) / len(right)}
        if task != "gvq":
            return accuracy, places.count(None)
    read = [ascending_ranges(text) for _, text in rows]
    pairs = [(spans, spans_of(item)) for spans, (item, _) in zip(read, rows, strict=True)]
    failed = sum(not spans for spans in read)
    if task == "tal":
        return _mean_tables([_all_intervals(*pair) for pair in pairs]), failed
    if task == "evs":
        values = [_seconds_f1(*pair, published) for pair in pairs if pair[0] or not published]
        return {"F1": sum(values) / len(values) if values else 0.0}, failed
    ious = [float(_ious(spans[:1], truth).max()) if spans else 0.0 for spans, truth in pairs]
    if task == "gvq":
        # Another option is no answer at all.
        ious = [iou if ok else -1.0 for iou, ok in zip(ious, right, strict=True)]
    shares = {t: sum(iou >= t for iou in ious) / len(ious) for t in THRESHOLDS}
    each, mean = ("F1", "F1") if task in ("tvg", "epm") else ("R", "Rec")
    table = {"mIoU": sum(max(iou, 0.0) for iou in ious) / len(ious)}
    table |= {f"{each}@{t}": share for t, share in shares.items()}
    table[mean] = sum(shares.values()) / len(shares)
    return table | (accuracy if task == "gvq" else {}), failed


def _chosen(task: str, text: str, item: Mapping[str, Any], published: bool) -> int | None:
    place = chosen_letter(task, text, len(item["o"]))
    if place is not None or published:
        return place
    options = [f"{o[0]} - {o[1]}" if isinstance(o, list) else o for o in item["o"]]
    return read_choice(text, Options(LETTERS[: len(options)], options))


def chosen_letter(task: str, text: str, options: int) -> int | None:
    """Return the option whose letter an answer names, as published; -1 for an empty answer.

    None: the published scorer would look for the most similar option.
    """
    letters = "abcde"[:options]
    if task != "gvq":
        match = re.search(r"\(([A-Za-z])\)", text)
        if match and match[1].lower() in letters:
            return letters.index(match[1].lower())
    text = text.lower().removeprefix("best option:").lstrip().lstrip("(").lstrip()
    if not text:
        return -1
    if (len(text) == 1 or text[1] in "., )") and text[0] in letters:
        return letters.index(text[0])
    return None


def _ious(predicted: Sequence[Interval], truth: Sequence[Interval]) -> np.ndarray:
    """(predicted, true) IoU in float32, which decides ties; 0 where neither has a length."""
    a, b = (np.asarray(part, np.float32).reshape(-1, 2) for part in (predicted, truth))
    ends, starts = np.minimum(a[:, None, 1], b[:, 1]), np.maximum(a[:, None, 0], b[:, 0])
    common = np.maximum(ends - starts, np.float32(0))
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0]) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union != 0)


def _all_intervals(predicted: Sequence[Interval], truth: Sequence[Interval]) -> dict[str, float]:
    f1s = dict.fromkeys(THRESHOLDS, 0.0)
    if predicted and truth:
        ious = _ious(predicted, truth)
        for t in THRESHOLDS:
            shares = [(ious.max(axis=i) >= t).mean(dtype=np.float32) for i in (0, 1)]
            f1s[t] = f1(*map(float, shares))
    table = {f"F1@{t}": value for t, value in f1s.items()}
    return table | {"F1": sum(f1s.values()) / len(f1s)}


def _seconds_f1(predicted: Sequence[Interval], truth: Sequence[Interval], published: bool) -> float:
    said, true = (
        {second for start, end in part for second in range(max(0, round(start)), round(end))}
        for part in (predicted, truth)
    )
    if published:
        said, true = ({second for second in part if second < LAST_SECOND} for part in (said, true))
    both = len(said & true)
    return f1(both / len(said), both / len(true)) if both else 0.0


def _mean_tables(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in tables) / len(tables) for name in tables[0]}


def _described(rows: Rows, published: bool) -> tuple[dict[str, float], int]:
    """F1 of the times of dense captions; precision and recall are 0 where nothing is read."""
    events = {}
    for number, (item, text) in enumerate(rows):
        if read := captioned_ranges(text):
            # There a later answer about a video of the same name takes the place of the former.
            windows = np.array([span for span, _ in read]), np.array(item["tgt"], dtype=float)
            events[item["video"] if published else number] = iou_matrix(*windows)
    tables = [localisation(ious, THRESHOLDS) for ious in events.values()]
    means = np.sum(tables, axis=0) / len(rows) if tables else np.zeros((2, len(THRESHOLDS)))
    f1s = {f"F1@{t}": f1(*pair) for t, pair in zip(THRESHOLDS, means.T.tolist(), strict=True)}
    failed = sum(not captioned_ranges(text) for _, text in rows)
    return f1s | {"F1": sum(f1s.values()) / len(f1s)}, failed


def _captions(
    asked: Mapping[tuple[str, str], Rows], given: Mapping[tuple[str, str], Rows]
) -> tuple[dict[str, float], dict[str, float]]:
    """Caption scores: means over sources in percent, and those of the published scorer.

    An answer without events has 0 in the first, and is left out of the second.

    Raises:
        FileError: there is no Java.
    """
    every = [
        row
        for groups in (asked, given)
        for (task, _), rows in groups.items()
        for row in rows
        if task in ("dvc", "slc")
    ]
    texts = [caption for _, text in every for _, caption in captioned_ranges(text)]
    if not texts:
        return {}, {}
    tokens = ptb.tokenize(map(_ascii, [*texts, *(one for item, _ in every for one in item["g"])]))
    tables: dict[str, list[dict[str, float]]] = {}
    as_run = {}
    with Aligner(tokens.values()) as aligner:
        for (task, _), rows in asked.items():
            if task in ("dvc", "slc"):
                videos = [video for row in rows if (video := _video(row, tokens))]
                table = _caption_table(videos, aligner)
                table = {name: v * len(videos) / len(rows) for name, v in table.items()}
                tables.setdefault(task, []).append(table)
        for (task, source), rows in given.items():
            if task in ("dvc", "slc"):
                by_name = {row[0]["video"]: _video(row, tokens) for row in rows}
                table = _caption_table([video for video in by_name.values() if video], aligner)
                for name, value in table.items():
                    as_run[f"{task}/{source}/{name}_as_run"] = 100 * round(value, 5)
    return _over_sources(tables), as_run


def _caption_table(videos: Sequence[Video], aligner: Aligner) -> dict[str, float]:
    if not videos:
        return dict.fromkeys(("METEOR", "CIDEr", "ROUGE_L", *(f"Bleu_{n}" for n in "1234")), 0.0)
    meteors, ciders = caption_scores(videos, aligner)
    others = bleu_and_rouge(videos)
    others["ROUGE_L"] = others.pop("Rouge-L")
    return {"METEOR": float(meteors.mean()), "CIDEr": float(ciders.mean()), **others}


def _video(row: tuple[Mapping[str, Any], str], tokens: Mapping[str, str]) -> Video | None:
    item, text = row
    events = captioned_ranges(text)
    if not events:
        return None
    windows = np.array([span for span, _ in events], dtype=float)
    predicted = Events(windows, [tokens[_ascii(caption)] for _, caption in events])
    captions = [tokens[_ascii(caption)] for caption in item["g"]]
    return Video(predicted, Events(np.array(item["tgt"], dtype=float), captions), THRESHOLDS)


def _ascii(text: str) -> str:
    return re.sub(r"[^\x00-\x7f]", " ", text)


def spans_of(item: Mapping[str, Any]) -> list[Interval]:
    """The annotated intervals, seconds: one, several, or those of several annotators."""
    target = item.get("tgt") or []
    if target and not isinstance(target[0], list):
        target = [target]
    if target and isinstance(target[0][0], list):
        target = [span for annotator in target for span in annotator]
    return [tuple(span) for span in target]


def read_predictions(path: Path) -> list[tuple[Key, str]]:
    """Read rows `{"task", "source", "idx", "a"}`, a list or JSON lines.

    Raises:
        FileError: the file is not of this form.
    """
    problem = 'expected {"task", "source", "idx", "a"}; is this another benchmark\'s file?'
    found = []
    for place, row in read_rows(path, "answers to E.T. Bench"):
        fits = {"task", "source", "idx", "a"} <= row.keys()
        expect(fits and isinstance(row["a"], str | None), place, problem)
        found.append((key_of(row), row["a"] or ""))
    expect(found, str(path), problem)
    return found


def read_ground_truth(path: Path) -> dict[Key, dict[str, Any]]:
    """Read the owner's annotation by task, source and number.

    Raises:
        FileError: the file is not of this form.
    """
    problem = "not an E.T. Bench annotation; give etbench_vid_v1.0.json."
    items = {}
    for place, item in read_rows(path, "E.T. Bench annotation"):
        fits = {"task", "source", "idx", "video"} <= item.keys() and item["task"] in NAMES
        expect(fits, place, problem)
        task = item["task"]
        needed = (
            {"o", "p"} if task in CHOICES else {"tgt", "g"} if task in ("dvc", "slc") else set()
        )
        expect(needed <= item.keys(), place, problem)
        expect("tgt" in item or task in ("rar", "eca", "rvq"), place, problem)
        for span in spans_of(item):
            interval(span, place)
        items[key_of(item)] = item
    expect(items, str(path), problem)
    return items
