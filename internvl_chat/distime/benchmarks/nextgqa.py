"""NExT-GQA: question answering that must also point at the moment (Xiao et al., CVPR 2024).

Over the questions with annotated locations, in percent:

- IoU and IoP (intersection over the *predicted* length) with the best of the annotated
  locations, each maximised on its own; their means are mIoU and mIoP, and IoU@t, IoP@t the
  shares that reach t.
- Acc@GQA: right answer and IoP >= 0.5. Acc@QA: right answer, also by question type.

A question without a span is a miss and without an answer is wrong. The published scorer drops
the former from every denominator and stops at the latter.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Choice,
    Query,
    SettingsError,
    rounded_intervals,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source, has_column, table_rows
from distime.files import FileError, read_json, read_text, write_json
from distime.metrics.choices import Options, read_choice
from distime.metrics.grounded_answers import (
    GROUPS,
    Chosen,
    Question,
    Spans,
    accuracy,
    grounding,
    group_sizes,
)
from distime.metrics.intervals import NO_ANSWER, Interval
from distime.processing.answers import Answer, Event
from distime.processing.questions import CHOOSE, RETRIEVAL
from distime.values import expect, interval, is_number

TIMES, ANSWERS = "result_timestamp.json", "result.json"

_PUBLISHED = re.compile(r"Answer: \((\d+)\)|The answer is \((\d+)\)|Answer is \((\d+)\)|\((\d+)\)")


class NextGQA(Benchmark):
    """Stage 1 asks for times, stage 2 for options, with the frames of stage 1's interval."""

    name = "nextgqa"
    annotation = "nextgqa/test.json"
    ground_truth = "gsub_test.json"
    videos = "nextgqa"
    stages = (1, 2)
    title = "NExtGQA"
    rank = 6
    join = "\n"
    predictions = ("result.json",)
    file_limit = 2
    takes = {"timestamps": 2}
    headline = ("Acc@GQA", "mIoP", "IoP@0.5", "mIoU", "IoU@0.5", "Acc@QA")
    released = {
        "Acc@GQA": 16.96,
        "mIoP": 33.54,
        "IoP@0.5": 23.72,
        "mIoU": 31.06,
        "IoU@0.5": 21.79,
        "Acc@QA": 65.93,
    }
    released_8b = {
        "Acc@GQA": 28.07,
        "mIoP": 40.54,
        "IoP@0.5": 33.80,
        "mIoU": 35.91,
        "IoU@0.5": 28.80,
        "Acc@QA": 80.32,
    }
    peers = {"VideoMind-7B": {"Acc@GQA": 28.2, "mIoU": 31.4}}  # zero-shot, of its paper
    official_queries, official_videos = 8564, 1000

    def queries(self) -> Iterator[Query]:
        """One query per entry of `test.json`.

        Raises:
            SettingsError: also when stage 2 finds no times of stage 1.
        """
        if self.settings.stage == 2 and not self.times_path.is_file():
            raise SettingsError(
                f"--timestamps {self.times_path}: no such file; run stage 1 with the same "
                "--out-dir first"
            )
        try:
            for item in self.read_annotation():
                qid, video, asked = item["qid"], item["video"], item["question"]
                if self.settings.stage == 1:
                    yield Query(
                        qid,
                        video,
                        time_question(item["question"]),
                        item,
                        title=item["question"],
                    )
                else:
                    options = [item[f"a{i}"] for i in range(item["num_option"])]
                    question = choice_question(asked, options)
                    start, end = self._times.get(qid, NO_ANSWER)
                    bound = None if (start, end) == NO_ANSWER else (start, end)
                    yield Query(qid, video, question, item, bound)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, SettingsError):
                raise
            raise self.misfit(error) from None

    @property
    def times_path(self) -> Path:
        """Where stage 2 reads what stage 1 wrote."""
        return self.settings.timestamps or self.settings.out_dir / TIMES

    @cached_property
    def _times(self) -> dict[str, list[float]]:
        rows = self.read_annotation(self.times_path, flag="timestamps")
        return {row["qid"]: [row["timestamp"][0], row["timestamp"][-1]] for row in rows}

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"qid", "timestamp"}]`, in stage 2 with `"prediction"` and `"target"`."""
        results = []
        for query, answer in answered:
            if answer is None:
                continue
            if self.settings.stage == 1:
                result = {"qid": query.id, "timestamp": rounded_intervals(answer)[0]}
            else:
                chosen = chosen_option(answer.text, query.item)
                result = {
                    "qid": query.id,
                    "prediction": chosen,
                    "timestamp": list(query.bound or (-1, -1)),
                    "target": query.item["answer"],
                }
                if (published := published_option(answer.text)) != chosen:
                    result["published_prediction"] = published
            results.append(result)
        path = out_dir / (TIMES if self.settings.stage == 1 else ANSWERS)
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated locations, where the metric's file is at hand; stage 2 names no times."""
        if self.settings.stage == 2:
            return []
        _, video, *_, number = query.id.split("_")
        locations = self._locations.get(video, {}).get("location", {})
        return [Event(*window) for window in locations.get(number, [])]

    def choice(self, query: Query, answer: Answer) -> Choice | None:
        """The option that stage 2 names."""
        if self.settings.stage == 1:
            return None
        right = query.item["answer"]
        expected = f"({right}) {query.item[f'a{right}']}"
        chosen = chosen_option(answer.text, query.item)
        return Choice(expected, str(chosen) == str(right), chosen != -1)

    @cached_property
    def _locations(self) -> dict[str, dict]:
        path = self.settings.ground_truth
        return self.read_annotation(path, flag="ground-truth") if path.is_file() else {}

    @staticmethod
    def scored_key(query: Query) -> Hashable:
        """Its video and number, without its type."""
        return "_".join(query.id.split("_")[1:])

    @classmethod
    def score(
        cls,
        pred_path: Path | Sequence[Path],
        gt_path: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score ``result.json``, or its halves ``result_qa.json`` and ``result_gd.json``.

        Args:
            pred_path: one of the three files, or both halves. With one half only, the metrics that
                need the other are left out.
            gt_path: ``gsub_test.json``, with ``test.csv`` beside it, or their folder.
            published: also compute what the published scorers give.
        """
        paths = [pred_path] if isinstance(pred_path, Path) else list(pred_path)
        answers, spans, counts = read_predictions(paths)
        questions = [
            question
            for question in read_ground_truth(gt_path)
            if only is None or question.key in only
        ]
        known = {question.key for question in questions}
        for part in (answers, spans):
            expect(
                not part or known & part.keys(),
                ", ".join(map(str, paths)),
                f"none of its {len(part or ())} questions is in {gt_path}; is this another "
                "benchmark?",
            )
        warnings = []
        if len({path.resolve().parent for path in paths}) > 1:
            warnings.append("answers and spans come from different folders: are they of one model?")
        result = evaluate(answers, spans, questions, published=published)
        counts = {**result.counts, **counts}
        warnings += result.warnings
        return Result("nextgqa", result.metrics, counts, result.published_as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """NExT-QA's multiple-choice `test.csv`, `map_vid_vidorID.json`; NExT-GQA's own two files.

        Both data sets have a `test.csv`; NExT-QA's has the column `video`, NExT-GQA's `video_id`.
        """
        folders = source.json("map_vid_vidorID.json")
        made, questions = Conversion(), []
        for row in table_rows(source.find("test.csv", fits=partial(has_column, name="video"))):
            video = folders[row["video"]]
            made.videos.append(video)
            if keep(video):
                options = {f"a{i}": f"{row[f'a{i}']}." for i in range(5)}
                questions.append(
                    {
                        "video": video,
                        "num_option": 5,
                        "qid": f"{row['type']}_{row['video']}_{row['qid']}",
                        **options,
                        "answer": int(row["answer"]),
                        "question": f"{row['question']}?",
                    }
                )
        table = source.find("test.csv", fits=partial(has_column, name="video_id"))
        made.files = {
            "test.json": questions,
            "test.csv": table.read_text(encoding="utf-8"),
            "gsub_test.json": source.json("gsub_test.json"),
        }
        return made


def evaluate(
    answers: Mapping[str, Chosen] | None,
    spans: Spans | None,
    questions: Sequence[Question],
    *,
    published: bool = False,
) -> Result:
    """Score answers, spans or both that are already in memory.

    Raises:
        FileError: there is no question to score, or a correct option is not known.
    """
    expect(questions, "ground truth", "it holds no question.")
    counts = {"questions": len(questions)}
    metrics: dict[str, float] = {}
    as_run: dict[str, float] = {}
    warnings = []
    if spans is not None:
        counts["missing_spans"] = sum(question.key not in spans for question in questions)
        answered = [(q, spans[q.key]) for q in questions if q.key in spans]
        counts["no_answer"] = sum(span == NO_ANSWER for _, span in answered)
        counts["reversed"] = sum(start > end for _, (start, end) in answered)
        counts["out_of_range"] = sum(
            # Annotated durations are whole seconds.
            span != NO_ANSWER and (span[0] < 0 or span[1] > (q.duration or math.inf) + 1)
            for q, span in answered
        )
        metrics |= grounding(answers, spans, questions)
    if answers is not None:
        counts["missing_answers"] = sum(question.key not in answers for question in questions)
        counts["unparsable_answers"] = sum(
            answers[q.key].prediction == -1 for q in questions if q.key in answers
        )
        unread = counts["unparsable_answers"]
        if unread:
            warnings.append(
                f"{unread} of {len(questions)} answers name no option, or several, and count as "
                "wrong."
            )
        metrics |= accuracy(answers, questions)
        counts |= {f"questions_{g}": n for g, n in group_sizes(questions).items()}
    if published and answers is not None:
        answers = {
            key: answer
            if answer.published is None
            else answer._replace(prediction=answer.published)
            for key, answer in answers.items()
        }
    if published and spans is not None:
        answered = [question for question in questions if question.key in spans]
        if answers is not None and any(question.key not in answers for question in answered):
            warnings.append(
                "no published-as-run grounding values: the published scorer stops (KeyError) at "
                "a span without an answer."
            )
        elif answered:
            values = grounding(answers, spans, answered)
            as_run |= {f"{name}_without_missing": value for name, value in values.items()}
    if published and answers is not None:
        if counts["missing_answers"]:
            warnings.append(
                "no published-as-run accuracy: the published scorer stops (KeyError) at a "
                "question without an answer."
            )
        else:
            as_run |= accuracy(answers, questions)
    return Result("nextgqa", metrics, counts, as_run, tuple(warnings))


def read_predictions(
    paths: Sequence[Path],
) -> tuple[dict[str, Chosen] | None, dict[str, Interval] | None, dict[str, int]]:
    """Return the answers, the spans (None where no file holds them) and counts.

    Raises:
        FileError: a file is of none of the three forms, or two files hold the same half.
    """
    answers: dict[str, Chosen] | None = None
    spans: dict[str, Interval] | None = None
    duplicates = 0
    for path in paths:
        value, repeated = read_json(path, "NExT-GQA result.json, result_qa.json or result_gd.json")
        duplicates += len(repeated)
        if isinstance(value, list):
            expect(len(paths) == 1, str(path), "a raw result.json is scored alone.")
            qa, gd, repeats = split(value, str(path))
            duplicates += repeats
            return read_answers(qa, str(path)), read_spans(gd, str(path)), {"duplicates": repeats}
        expect(isinstance(value, dict) and value, str(path), "expected a NExT-GQA result.")
        if isinstance(next(iter(value.values())), dict):
            expect(answers is None, str(path), "both files hold answers; name one with spans.")
            answers = read_answers(value, str(path))
        else:
            expect(spans is None, str(path), "both files hold spans; name one with answers.")
            spans = read_spans(value, str(path))
    return answers, spans, {"duplicates": duplicates}


def split(rows: Sequence[Any], place: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Split the rows of a raw ``result.json`` into its halves and count repeated questions.

    Returns:
        ``{key: {"prediction": int, "answer": int}}``, ``{key: [start, end]}`` and the repeats
        (the last one stays); a key is ``video_question``.

    Raises:
        FileError: a row is not ``{"qid", "prediction", "timestamp", "target"}``.
    """
    qa: dict[str, Any] = {}
    gd: dict[str, Any] = {}
    repeats = 0
    for number, row in enumerate(rows, 1):
        where = f"{place}, row {number}"
        fields = {"qid", "prediction", "timestamp", "target"}
        expect(
            isinstance(row, dict) and fields <= row.keys(),
            where,
            f"expected the fields {', '.join(sorted(fields))}; give result.json of stage 2.",
        )
        parts = str(row["qid"]).split("_")
        expect(len(parts) >= 3, where, f"qid {row['qid']!r} is not TYPE_VIDEO_QUESTION.")
        key = f"{parts[1]}_{parts[-1]}"
        repeats += key in qa
        try:
            qa[key] = {"prediction": int(row["prediction"]), "answer": int(row["target"])}
            if "published_prediction" in row:
                qa[key]["published_prediction"] = int(row["published_prediction"])
        except (TypeError, ValueError):
            raise FileError(
                f"{where}: prediction {row['prediction']!r} and target {row['target']!r} must be "
                "option numbers; write -1 where no option was named."
            ) from None
        span = row["timestamp"]
        expect(
            isinstance(span, list | tuple) and span,
            where,
            f"timestamp {span!r} is not [start, end].",
        )
        gd[key] = [span[0], span[-1]]
    return qa, gd, repeats


def split_file(path: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Write the halves of a raw ``result.json`` to ``folder``, by default beside it.

    Raises:
        FileError: the file is not a raw result.
    """
    value, _ = read_json(path, "NExT-GQA result.json of stage 2")
    expect(isinstance(value, list), str(path), "expected a list of rows; give result.json.")
    qa, gd, _ = split(value, str(path))
    folder = folder or path.parent
    paths = folder / "result_qa.json", folder / "result_gd.json"
    for target, half in zip(paths, (qa, gd), strict=True):
        write_json(target, half)
    return paths


def read_answers(value: Mapping[str, Any], place: str) -> dict[str, Chosen]:
    """Check the content of a ``result_qa.json``.

    Raises:
        FileError: an entry is not ``{"prediction": int, "answer": int}``.
    """
    answers = {}
    for key, entry in value.items():
        fields = isinstance(entry, dict) and {"prediction", "answer"} <= entry.keys()
        expect(
            fields and is_number(entry["prediction"]) and is_number(entry["answer"]),
            f"{place}, {key}",
            'expected {"prediction": number, "answer": number}.',
        )
        published = entry.get("published_prediction")
        answers[key] = Chosen(entry["prediction"], entry["answer"], published)
    return answers


def read_spans(value: Mapping[str, Any], place: str) -> dict[str, Interval]:
    """Check the content of a ``result_gd.json``.

    Raises:
        FileError: an entry is not ``[start, end]``.
    """
    return {key: interval(entry, f"{place}, {key}") for key, entry in value.items()}


def read_ground_truth(path: Path) -> list[Question]:
    """Read ``gsub_test.json`` and the question types of the ``test.csv`` beside it.

    Returns:
        The questions with locations, in the order of ``test.csv``.

    Raises:
        FileError: a file is missing, of another form, or lacks a question of the other.
    """
    folder = path if path.is_dir() else path.parent
    path = folder / "gsub_test.json" if path.is_dir() else path
    value, _ = read_json(path, "NExT-GQA annotation (gsub_test.json)")
    try:
        locations = {
            f"{video}_{number}": [interval(w, f"{path}, {video}, {number}") for w in windows]
            for video, entry in value.items()
            for number, windows in entry["location"].items()
        }
        durations = {video: entry.get("duration") for video, entry in value.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(
            f"{path}: not a NExT-GQA annotation ({error!r}); give gsub_test.json or its folder."
        ) from None
    table = folder / "test.csv"
    reader = csv.DictReader(io.StringIO(read_text(table, "NExT-GQA question table (test.csv)")))
    questions = []
    for row in reader:
        place = f"{table}, line {reader.line_num}"
        expect({"video_id", "qid", "type"} <= row.keys(), place, "give NExT-GQA's test.csv.")
        key = f"{row['video_id']}_{row['qid']}"
        if key in locations:
            expect(row["type"] in GROUPS, place, f"unknown question type {row['type']!r}.")
            duration = durations[row["video_id"]]
            questions.append(Question(key, row["type"], locations.pop(key), duration))
    expect(
        not locations,
        str(table),
        f"it lacks {len(locations)} questions of {path.name}, first {next(iter(locations), '')}; "
        "take both files from one release.",
    )
    return questions


def chosen_option(text: str, item: dict) -> str | int:
    """Return the digits of the option that an answer names, or -1."""
    texts = [item[f"a{number}"] for number in range(item["num_option"])]
    place = read_choice(text, Options([str(number) for number in range(len(texts))], texts))
    return -1 if place is None else str(place)


def published_option(text: str) -> str | int:
    """Return what the published script reads: the digits of the first match, or -1."""
    match = _PUBLISHED.search(text)
    return next(group for group in match.groups() if group) if match else -1


def time_question(question: str) -> str:
    """NExT-GQA, first stage: when is that which the question asks about?"""
    return RETRIEVAL.format(article="the", query=question)


def choice_question(question: str, options: Sequence[str]) -> str:
    """NExT-GQA, second stage: options are numbered from (0)."""
    listed = "\n".join(f"({i}) {option}" for i, option in enumerate(options))
    return f"{CHOOSE}Question1: {question}\nOptions:\n{listed}\nOnly give the best option."
