"""ReXTime: questions about causes and effects across time, with the span that answers them.

IoU is that of the first listed window, overlap over the hull, and R1@t the share with IoU >= t; VQA
is the share of right letters, and ``VQA,mIoU@t`` that of right letters with IoU >= t. Two annotated
windows have no length, so a perfect file reaches 99.78. The published scorer stops where questions
are missing; here they count as wrong. Its letters are compared as they stand, upper case.

The options are not in the owner's repository but on the Hugging Face hub: `distime prepare` adds
them where `OPTIONS_FILE` lies beside. Then each question is asked twice, for its span and, with the
options, for the letter; without options only for the span.

Definitions: gh:ReXTime/ReXTime, evaluation/rextime_eval.py at cb9f484 (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Choice,
    Query,
    restricted,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, PrepareError, Source, unchanged
from distime.files import FileError, json_lines, read_rows, write_text
from distime.metrics.choices import LETTERS, Options, read_choice
from distime.metrics.intervals import Interval
from distime.metrics.moments import hull_iou, recall_table
from distime.processing.answers import Answer, Event
from distime.processing.questions import CHOOSE
from distime.values import expect, interval

OPTIONS_FILE = "rextime_val.json"
"""The owner's file on the hub: rows `{"qid", "options": [text] * 4, ...}`."""
LETTER = " letter"
"""What the ids of questions for the letter end with."""
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
JOINT = (0.3, 0.5, 0.7)


class ChoiceQuestion(NamedTuple):
    """One annotated question; times in seconds."""

    window: Interval
    letter: str


class ReXTime(Benchmark):
    """The first interval of an answer counts."""

    name = "rextime"
    title = "ReXTime"
    rank = 26
    annotation = "rextime/rextime_val.jsonl"
    videos = "rextime"
    owners_prompt = (
        "Please find a relevant span to answer in seconds to answer the question in the following "
        "format: From <start_time> to <end_time>. Quesetion: {query}"
    )  # so it is spelt in the owner's demo
    predictions = ("results.jsonl",)
    headline = ("VQA", "R1@0.3", "R1@0.5", "mIoU", "VQA,mIoU@0.5")
    official_queries, official_videos = 921, 696

    def queries(self) -> Iterator[Query]:
        """One query per question for its span, and one for its letter where there are options."""
        try:
            for item in read_lines(self.settings.annotation):
                key, video, words = str(item["qid"]), item["vid"], item["query"]
                yield Query(key, video, self.moment_question(words), item, title=words)
                if options := item.get("options"):
                    question = choice_question(words, options)
                    yield Query(f"{key}{LETTER}", video, question, item, title=words)
        except (KeyError, TypeError, FileError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write JSON lines `{"qid", "pred_relevant_windows": [[s, e], ...], "ans"}`, seconds.

        `ans` is left out where no letter was asked for, and '' where none is named.
        """
        rows: dict[str, dict[str, Any]] = {}
        asks_letters = any(query.id.endswith(LETTER) for query, _ in answered)
        for query, answer in answered:
            if answer is None:
                continue
            empty = {"qid": str(query.item["qid"]), "pred_relevant_windows": [[0, 0]]}
            row = rows.setdefault(empty["qid"], empty | ({"ans": ""} if asks_letters else {}))
            if query.id.endswith(LETTER):
                place = chosen_option(query, answer)
                row["ans"] = "" if place is None else LETTERS[place]
            elif answer.events:
                row["pred_relevant_windows"] = [[e.start, e.end] for e in answer.events]
        path = out_dir / "results.jsonl"
        write_text(path, json_lines(rows.values()))
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window; nothing where the letter is asked for."""
        if query.id.endswith(LETTER):
            return []
        return [Event(*window) for window in query.item["relevant_windows"]]

    def choice(self, query: Query, answer: Answer) -> Choice | None:
        """The option that the answer to a question for the letter names."""
        if not query.id.endswith(LETTER):
            return None
        right, place = query.item["ans"], chosen_option(query, answer)
        words = query.item["options"][LETTERS.index(right)]
        named = place is not None
        return Choice(f"({right}) {words}", named and LETTERS[place] == right, named)

    @staticmethod
    def scored_key(query: Query) -> Hashable:
        """The qid, which both questions share."""
        return str(query.item["qid"])

    @classmethod
    def score(
        cls,
        predictions: Path,
        ground_truth: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score a submission; what its first row has, spans, letters or both, is scored."""
        rows = read_lines(predictions)
        questions = restricted(read_ground_truth(ground_truth), only)
        found = {str(row.get("qid")): row for row in rows}
        expect(
            questions.keys() & found.keys(),
            str(predictions),
            f"none of its {len(found)} qids is in {ground_truth}; is this another split?",
        )
        counts = Counter(
            queries=len(questions),
            missing=len(questions.keys() - found.keys()),
            unknown=len(found.keys() - questions.keys()),
            duplicates=len(rows) - len(found),
        )
        has_spans, has_letters = "pred_relevant_windows" in rows[0], "ans" in rows[0]
        expect(
            has_spans or has_letters, str(predictions), "its first row has neither window nor ans."
        )
        metrics: dict[str, float] = {}
        right: list[bool] = []
        if has_letters:
            given = {key: row.get("ans") for key, row in found.items()}
            right = [given.get(key) == one.letter for key, one in questions.items()]
            metrics["VQA"] = 100 * sum(right) / len(right)
            counts["no_letter"] = sum(not given.get(key) for key in questions)
        if has_spans:
            spans = {key: _first(row, f"{predictions}, {key}") for key, row in found.items()}
            ious = [
                hull_iou(spans[key], one.window) if spans.get(key) else 0.0
                for key, one in questions.items()
            ]
            counts["no_answer"] = sum(span is None for span in spans.values())
            counts["reversed"] = sum(span[0] > span[1] for span in spans.values() if span)
            metrics |= recall_table(ious, THRESHOLDS)
        if has_spans and has_letters:
            for t in JOINT:
                both = [ok and iou >= t for ok, iou in zip(right, ious, strict=True)]
                metrics[f"VQA,mIoU@{t}"] = 100 * sum(both) / len(both)
        warnings = []
        as_run: dict[str, float] = {}
        if published and (counts["missing"] or counts["unknown"]):
            warnings.append(
                "no published-as-run values: the published scorer stops where the questions are "
                "not those of the annotation."
            )
        elif published:
            # VQA is a fraction there, and not rounded.
            as_run = {
                f"{name}_rounded": value if name.startswith("VQA") else round(value, 2)
                for name, value in metrics.items()
            }
        return Result(cls.name, metrics, dict(counts), as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`rextime_val.jsonl`, with the options of `rextime_val.json` where that lies beside."""
        items = list(source.json_lines("rextime_val.jsonl"))
        if source.holds(OPTIONS_FILE):
            options = {str(row["qid"]): row["options"] for row in source.json(OPTIONS_FILE)}
            without = [item["qid"] for item in items if str(item["qid"]) not in options]
            if without:
                raise PrepareError(
                    f"{OPTIONS_FILE}: it has no options for {len(without)} questions of "
                    f"rextime_val.jsonl, first {without[0]}; is it of another version?"
                )
            items = [{**item, "options": options[str(item["qid"])]} for item in items]
        return unchanged("rextime_val.jsonl", items, itemgetter("vid"), keep)


def choice_question(question: str, options: Sequence[str]) -> str:
    """Options are lettered from (A); otherwise as DisTime's published multiple choice."""
    listed = "\n".join(f"({LETTERS[i]}) {option}" for i, option in enumerate(options))
    return f"{CHOOSE}Question: {question}\nOptions:\n{listed}\nOnly give the best option."


def chosen_option(query: Query, answer: Answer) -> int | None:
    """The place of the option that an answer names."""
    options = query.item["options"]
    return read_choice(answer.text, Options(LETTERS[: len(options)], options))


def _first(row: Mapping[str, Any], place: str) -> Interval | None:
    windows = row.get("pred_relevant_windows") or []
    expect(isinstance(windows, list), place, "pred_relevant_windows is not a list.")
    return interval(windows[0][:2], place) if windows else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines of objects with a qid.

    Raises:
        FileError: the file holds none, or something else.
    """
    rows = [row for _, row in read_rows(path, "ReXTime JSON lines", ("qid",))]
    expect(rows, str(path), "it holds no line.")
    return rows


def read_ground_truth(path: Path) -> dict[str, ChoiceQuestion]:
    """Read `{"qid", "relevant_windows": [[s, e]], "ans": "A"}` lines.

    Raises:
        FileError: the file is not of this form.
    """
    questions = {}
    for row in read_lines(path):
        place = f"{path}, {row['qid']}"
        fits = row.get("relevant_windows") and isinstance(row.get("ans"), str)
        expect(fits, place, "not a ReXTime question with relevant_windows and ans.")
        window = interval(row["relevant_windows"][0], place)
        questions[str(row["qid"])] = ChoiceQuestion(window, row["ans"])
    return questions
