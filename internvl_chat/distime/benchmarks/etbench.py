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
stands beside, by source.

Two of its numbers take a sentence encoder, all-MiniLM-L6-v2, whose folder ``--sentence-model``
names: Sim of captions, and the option of an answer without a letter, for which it takes the most
similar one. Ours reads options by `distime.metrics.choices` and takes no most similar one, so that
alone the published values need the encoder for that. Without one they are left out, and said to be.

IoUs but those of captions are in float32, which decides ties. Definitions: a stored copy of
PolyU-ChenLab/ETBench's compute_metrics.py (CC BY-NC-SA 4.0). Copies of it differ: in most a wrong
letter is not final (``..._fall_through``), in one of GVQ's D stands for the fifth of four options
(``..._d=4``). The annotation is on the Hugging Face hub.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Query,
    ScoreOption,
    captioned_events,
    restricted,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, unchanged
from distime.files import FileError, file_digest, read_rows, write_json
from distime.metrics import ptb
from distime.metrics.choices import Options, read_choice
from distime.metrics.dense_captioning import (
    CaptionedVideo,
    TimedCaptions,
    bleu_and_rouge,
    caption_scores,
    f1,
    iou_matrix,
    localisation,
)
from distime.metrics.event_tasks import (
    LETTERS,
    THRESHOLDS,
    all_intervals_f1,
    first_iou,
    hit_table,
    read_letter,
    seconds_f1,
)
from distime.metrics.intervals import Interval
from distime.metrics.meteor import Aligner
from distime.metrics.similarity import Encoder, caption_similarity, most_similar
from distime.metrics.time_texts import ascending_ranges, captioned_ranges, first_number
from distime.model.tokens import TIME_STAMP
from distime.processing.answers import Answer, Event
from distime.values import expect, interval

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

MERGED = {
    "REF Acc": ("RAR Acc", "EVC Acc", "RVQ Acc"),
    "GND F1": ("TVG F1", "EPM F1", "TAL F1", "EVS F1", "VHD F1"),
    "CAP F1": ("DVC F1", "SLC F1"),
    "CAP Sim": ("DVC Sim", "SLC Sim"),
    "COM Rec": ("TEM Rec", "GVQ Rec"),
}
"""The owner's short table: referring, grounding, captioning, complex."""

CHOICES = ("rar", "eca", "rvq", "gvq")
"""Tasks with options."""

VARIANTS = {
    **dict.fromkeys(("rar", "eca", "rvq"), ("as_run", "fall_through")),
    "gvq": ("as_run", "d=4"),
}
"""Tasks whose published scorer exists in two copies that differ."""

UNDECIDED = -1
"""An option that only a sentence encoder can name."""

MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the published encoder's model.safetensors (sentence-transformers/all-MiniLM-L6-v2)."""

Key = tuple[str, str, str]
"""(task, source, idx)."""


class ETBench(Benchmark):
    """Asked in the owner's words, times written out; answered in words, times written out."""

    name = "etbench"
    title = "ETBench"
    rank = 31
    annotation = "etbench/etbench_vid_v1.0.json"
    videos = "etbench"
    owners_prompt = "{query}"  # it is never asked otherwise
    headline = (*MERGED, *NAMES.values(), "DVC Sim", "SLC Sim")
    score_options = {
        "sentence_model": ScoreOption(
            (), "folder of the sentence encoder all-MiniLM-L6-v2, for Sim of captions", "FOLDER"
        )
    }

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
        sentence_model: str | Path | None = None,
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
        encoder, warnings, files = _encoder(sentence_model)
        asked = grouped((item, found.get(key, "")) for key, item in items.items())
        given = grouped((everything[key], text) for key, text in rows if key in everything)
        metrics, unread = _headline(asked)
        as_run = _as_run(given if published else {}, encoder)
        values = as_run.values
        if as_run.needing:
            warnings.append(
                f"no published-as-run values where {as_run.needing} answers without a letter are "
                "compared with the options by a sentence encoder; give --sentence-model."
            )
        try:
            captions = _captions(asked, given if published else {}, encoder)
        except FileError as error:
            warnings.append(f"the captions of dvc and slc are not scored: {error}")
        else:
            metrics |= captions[0]
            values |= captions[1]
            if encoder is None and captions[0]:
                warnings.append(
                    "left out: Sim of captions, which takes a sentence encoder; give "
                    "--sentence-model, see docs/METRICS.md."
                )
        metrics = _merged(metrics) | metrics
        counts = {
            "queries": len(items),
            "missing": len(items.keys() - found.keys()),
            "unknown": len(found.keys() - everything.keys()),
            "duplicates": len(rows) - len(found),
            "unread_answers": unread,
            **as_run.failed,
        }
        return Result(cls.name, metrics, counts, values, tuple(warnings), files)

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`etbench_vid_v1.0.json`; the format stays."""
        name = "etbench_vid_v1.0.json"
        return unchanged(name, source.json(name), itemgetter("video"), keep)


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
        table, failed = score_group(task, rows, [_read_option(task, *row) for row in rows])
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


def _merged(metrics: Mapping[str, float]) -> dict[str, float]:
    """The owner's five means, as far as all that they are of is there."""
    return {
        name: sum(metrics[one] for one in parts) / len(parts)
        for name, parts in MERGED.items()
        if set(parts) <= metrics.keys()
    }


def score_group(
    task: str, rows: Rows, options: Sequence[int | None], *, published: bool = False
) -> tuple[dict[str, float], int]:
    """Score one task and source in [0, 1]; also return how many answers could not be read.

    Args:
        task: as in the files.
        rows: questions and answers.
        options: for each row the option that its answer names, None for none; of tasks that have
            options.
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
        right = [place == item["p"] for place, (item, _) in zip(options, rows, strict=True)]
        accuracy = {"Acc": sum(right) / len(right)}
        if task != "gvq":
            return accuracy, list(options).count(None)
    read = [ascending_ranges(text) for _, text in rows]
    pairs = [(spans, spans_of(item)) for spans, (item, _) in zip(read, rows, strict=True)]
    failed = sum(not spans for spans in read)
    if task == "tal":
        return _mean_tables([all_intervals_f1(*pair) for pair in pairs]), failed
    if task == "evs":
        end = LAST_SECOND if published else None
        values = [seconds_f1(*pair, end) for pair in pairs if pair[0] or not published]
        return {"F1": sum(values) / len(values) if values else 0.0}, failed
    ious: list[float | None] = [first_iou(*pair) for pair in pairs]
    if task != "gvq":
        return hit_table(ious, *(("F1", "F1") if task in ("tvg", "epm") else ("R", "Rec"))), failed
    # Another option is no answer at all.
    ious = [iou if ok else None for iou, ok in zip(ious, right, strict=True)]
    return hit_table(ious, "R", "Rec") | accuracy, failed


def _read_option(task: str, item: Mapping[str, Any], text: str) -> int | None:
    """The option that an answer names by its letter or in its own words."""
    if task not in CHOICES:
        return None
    letter = read_letter(text, len(item["o"]), in_brackets=task != "gvq")
    if letter.place is not None or not letter.rest:
        return letter.place
    options = _options(item)
    return read_choice(text, Options(LETTERS[: len(options)], options))


def _encoder(folder: str | Path | None) -> tuple[Encoder | None, list[str], dict[str, str]]:
    """Load the encoder that was named; with what to warn of, and the file that was read."""
    if folder is None:
        return None, [], {}
    from distime.processing.sentences import SentenceEncoder  # torch, for those who ask for it

    encoder = SentenceEncoder(Path(folder))
    weights = Path(folder) / "model.safetensors"
    warnings = []
    if not weights.is_file() or file_digest(weights) != MINILM:
        warnings.append(
            f"{folder} is not all-MiniLM-L6-v2 as published: what was compared by it is not what "
            "others report."
        )
    return encoder, warnings, {"sentence_model": str(folder)}


def _options(item: Mapping[str, Any]) -> list[str]:
    return [f"{one[0]} - {one[1]}" if isinstance(one, list) else one for one in item["o"]]


# ------------------------------------------------------------------ as the published scorer


class AsRun(NamedTuple):
    """What the published scorer gives, by ``task/source/name``."""

    values: dict[str, float]
    """In percent."""
    failed: dict[str, int]
    """How many answers it calls failed."""
    needing: int
    """How many answers it compares by a sentence encoder, where none is given."""


def _as_run(groups: Mapping[tuple[str, str], Rows], encoder: Encoder | None) -> AsRun:
    values: dict[str, float] = {}
    failed_counts, needing = {}, 0
    for (task, source), rows in groups.items():
        for name in VARIANTS.get(task, ("as_run",)):
            options = [_published_option(name, *row, encoder) for row in rows]
            unread = options.count(UNDECIDED)
            if unread:
                needing += unread if name == "as_run" else 0
                continue
            table, failed = score_group(task, rows, options, published=True)
            for metric, value in table.items():
                values[f"{task}/{source}/{metric}_{name}"] = 100 * round(value, 5)
            if name == "as_run":
                failed_counts[f"{task}/{source}/Failed_as_run"] = _failed(
                    task, rows, options, failed
                )
    return AsRun(values, failed_counts, needing)


def _published_option(
    variant: str, item: Mapping[str, Any], text: str, encoder: Encoder | None
) -> int | None:
    """As `_read_option`; `UNDECIDED` where that takes an encoder and there is none."""
    task = item["task"]
    if task not in CHOICES:
        return None
    truth = item["p"] if variant == "fall_through" else None
    count = len(item["o"])
    letter = read_letter(text, count, in_brackets=task != "gvq", truth=truth)
    if letter.place is not None:
        # One copy takes D for the fifth of four options.
        return 4 if (variant, letter.place, count) == ("d=4", 3, 4) else letter.place
    if not letter.rest:
        return None
    if encoder is None:
        return UNDECIDED
    options = [f"({name}) {one}" for name, one in zip(LETTERS, _options(item), strict=False)]
    return most_similar(letter.rest, options, encoder)


def _failed(task: str, rows: Rows, options: Sequence[int | None], unread: int) -> int:
    """How many answers the published scorer calls failed; of tasks with times, those unread."""
    if task not in CHOICES:
        return unread
    letters = [read_letter(text, len(item["o"]), in_brackets=task != "gvq") for item, text in rows]
    if task != "gvq":
        return sum(not letter.seen for letter in letters)
    empty = sum(letter.place is None and not letter.rest for letter in letters)
    right = [text for (item, text), place in zip(rows, options, strict=True) if place == item["p"]]
    return empty + sum(not ascending_ranges(text) for text in right)


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
    asked: Mapping[tuple[str, str], Rows],
    given: Mapping[tuple[str, str], Rows],
    encoder: Encoder | None,
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
                table = _caption_table(videos, aligner, encoder)
                table = {name: v * len(videos) / len(rows) for name, v in table.items()}
                tables.setdefault(task, []).append(table)
        for (task, source), rows in given.items():
            if task in ("dvc", "slc"):
                by_name = {row[0]["video"]: _video(row, tokens) for row in rows}
                videos = [video for video in by_name.values() if video]
                for name, value in _caption_table(videos, aligner, encoder).items():
                    as_run[f"{task}/{source}/{name}_as_run"] = 100 * round(value, 5)
    return _over_sources(tables), as_run


def _caption_table(
    videos: Sequence[CaptionedVideo], aligner: Aligner, encoder: Encoder | None
) -> dict[str, float]:
    similarity = {} if encoder is None else {"Sim": 0.0}
    if not videos:
        names = ("METEOR", "CIDEr", "ROUGE_L", *(f"Bleu_{n}" for n in "1234"))
        return dict.fromkeys(names, 0.0) | similarity
    if encoder is not None:
        similarity["Sim"] = caption_similarity(videos, encoder)
    meteors, ciders = caption_scores(videos, aligner)
    others = bleu_and_rouge(videos)
    others["ROUGE_L"] = others.pop("Rouge-L")
    return {"METEOR": float(meteors.mean()), "CIDEr": float(ciders.mean()), **others} | similarity


def _video(row: tuple[Mapping[str, Any], str], tokens: Mapping[str, str]) -> CaptionedVideo | None:
    item, text = row
    events = captioned_ranges(text)
    if not events:
        return None
    windows = np.array([span for span, _ in events], dtype=float)
    predicted = TimedCaptions(windows, [tokens[_ascii(caption)] for _, caption in events])
    captions = [tokens[_ascii(caption)] for caption in item["g"]]
    return CaptionedVideo(
        predicted, TimedCaptions(np.array(item["tgt"], dtype=float), captions), THRESHOLDS
    )


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
