"""LongVideoBench: multiple-choice questions about videos of up to an hour."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distime.benchmarks.base import (
    UNANSWERED,
    Answered,
    Benchmark,
    Choice,
    Query,
    restricted,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.data.video_finder import without_suffix
from distime.files import FileError, read_json, write_json
from distime.metrics.choices import options_in
from distime.metrics.multiple_choice import (
    ChoiceRow,
    empty_answers,
    letter,
    names_right_option,
    percent,
    read_rows,
    unread_warning,
)
from distime.processing.answers import Answer
from distime.processing.video import VideoError
from distime.values import expect

if TYPE_CHECKING:
    from distime.processing.processor import DisTimeProcessor
    from distime.processing.subtitles import Subtitle


GROUPS = ("duration_group", "level", "question_category", "topic_category")
"""Fields of `lvb_val.json` that accuracy is given by."""


class LongVideoBench(Benchmark):
    """Frames alone, as published; with `--subtitles` also what is said."""

    name = "longvideobench"
    annotation = "longvideobench/lvb_val.json"
    videos = "longvideobench"
    num_segments = 32
    rule = "midpoints"
    has_times = False
    title = "LongVideoBench"
    rank = 8
    join = "\n"
    predictions = ("result.json",)
    ground_truth_is_optional = True
    takes = {"subtitles": None}
    headline = ("Accuracy_overall",)
    released = {"Accuracy_overall": 47.57}
    released_8b = {"Accuracy_overall": 60.21}
    official_queries, official_videos = 1337, 753

    @cached_property
    def _items(self) -> list[dict]:
        return self.read_annotation()

    def queries(self) -> Iterator[Query]:
        """One query per entry of `lvb_val.json`."""
        try:
            for item in self._items:
                question = choice_question(item["question"], item["candidates"])
                yield Query(str(item["id"]), video_name(item), question, item)
        except (KeyError, TypeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write rows to `result.json` and the accuracy (a fraction) to `metrics.json`."""
        rows = []
        for query, answer in answered:
            truth = right_option(query.item)
            rows.append(
                {
                    "question": self.shown_question(query),
                    "pred": answer.text if answer is not None else UNANSWERED,
                    "gt": "\n".join(truth),  # one character per line, as published
                    "task_type": query.id,
                }
            )
        right = [
            names_right_option(ChoiceRow(row["pred"], row["gt"], "", options_in(query.question)))
            for row, (query, _) in zip(rows, answered, strict=True)
        ]
        write_json(out_dir / "metrics.json", {"Accuracy_overall": sum(right) / len(right)})
        path = out_dir / "result.json"
        write_json(path, rows)
        return path

    def choice(self, query: Query, answer: Answer) -> Choice:
        """By the metric's rule."""
        expected = right_option(query.item)
        row = ChoiceRow(answer.text, expected, "", options_in(query.question))
        return Choice(expected, names_right_option(row), bool(row.chosen))

    def processor(self, processor: DisTimeProcessor) -> DisTimeProcessor:
        """With `--subtitles`, show them between the frames."""
        if self.settings.subtitles is None:
            return processor
        # A processor needs torch, for which `--help` must not wait.
        from distime.processing.subtitles import SubtitledProcessor

        items = {without_suffix(Path(video_name(item)).name): item for item in self._items}
        return SubtitledProcessor(processor, lambda path: self._subtitles(items, path))

    def _subtitles(self, items: dict[str, dict], path: Path) -> list[Subtitle]:
        from distime.processing.subtitles import read_subtitles

        item = items[without_suffix(path.name)]
        file = self.settings.subtitles / item["subtitle_path"]
        try:
            entries, _ = read_json(file, "subtitle file")
            return read_subtitles(entries, item.get("starting_timestamp_for_subtitles", 0))
        except (FileError, KeyError, TypeError, ValueError) as error:
            raise VideoError(f"{path}: its subtitles cannot be read ({error}): {file}") from None

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path | None,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score ``result.json``; with ``lvb_val.json`` also by group, unanswered ones as wrong."""
        value, _ = read_json(pred_path, "LongVideoBench result.json")
        expect(isinstance(value, list), str(pred_path), "give result.json, the list of answers.")
        rows = read_rows(value, pred_path)
        unread = [row.answer for row in rows if not row.chosen]
        counts = {
            "questions": len(rows),
            "empty_answers": empty_answers(rows),
            "unread_answers": len(unread),
        }
        warnings = []
        if gt_path is None:
            for number, row in enumerate(rows, 1):
                place = f"{pred_path}, row {number}"
                expect(letter(row.truth), place, f"gt {row.truth!r} has no letter.")
            metrics = {"Accuracy_overall": percent(map(names_right_option, rows))}
            warnings.append(
                "no annotation given: no groups, and missing questions are not noticed."
            )
        else:
            metrics = _by_group(
                rows, restricted(read_ground_truth(gt_path), only), counts, pred_path, gt_path
            )
        warnings += unread_warning(unread, len(rows))
        as_run = {}
        if published:
            as_run["Accuracy_overall_lenient"] = percent(map(_as_run, rows))
        return Result("longvideobench", metrics, counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """`lvb_val.json` of LongVideoBench; the format stays."""
        items = source.json("lvb_val.json")
        wanted = [item for item in items if keep(item["video_path"])]
        return Conversion({"lvb_val.json": wanted}, [item["video_path"] for item in items])


def video_name(item: dict) -> str:
    """The video's file, or its id where the annotation names no file."""
    return item.get("video_path") or item["video_id"]


def right_option(item: dict) -> str:
    """The right option, `B. It rains.`."""
    number = item["correct_choice"]
    return f"{chr(ord('A') + number)}. {item['candidates'][number]}"


def _by_group(
    rows: Sequence[ChoiceRow],
    questions: dict[str, dict[str, Any]],
    counts: dict[str, int],
    pred_path: Path,
    gt_path: Path,
) -> dict[str, float]:
    chosen: dict[str, str] = {}
    counts |= {"duplicates": 0, "unknown": 0, "truth_differs": 0}
    for row in rows:
        question = questions.get(row.task)
        counts["unknown"] += question is None
        counts["duplicates"] += row.task in chosen
        if question is not None and letter(row.truth) != question["letter"]:
            counts["truth_differs"] += 1
        chosen.setdefault(row.task, row.chosen)
    expect(
        chosen.keys() & questions.keys(),
        str(pred_path),
        f"none of its questions is in {gt_path}; are these answers to another benchmark?",
    )
    counts["missing"] = len(questions.keys() - chosen.keys())
    counts["questions"] = len(questions)
    right = {key: chosen.get(key, "") == q["letter"] for key, q in questions.items()}
    metrics = {"Accuracy_overall": percent(right.values())}
    for field in GROUPS:
        groups = sorted({question[field] for question in questions.values()})
        for group in groups:
            members = [right[key] for key, q in questions.items() if q[field] == group]
            metrics[f"{field}={group}"] = percent(members)
            counts[f"{field}={group}"] = len(members)
    return metrics


def _as_run(row: ChoiceRow) -> bool:
    answer, truth = row.answer.lower(), row.truth.lower()
    first, _, rest = answer.partition(" ")
    true_first, _, true_rest = truth.partition(" ")
    return first.replace(".", "").strip() in true_first or bool(true_rest and true_rest in rest)


def read_ground_truth(path: Path) -> dict[str, dict[str, Any]]:
    """Read ``lvb_val.json`` as question id -> its groups and the ``letter`` of the right option.

    Raises:
        FileError: the file is not of this form.
    """
    value, _ = read_json(path, "LongVideoBench annotation (lvb_val.json)")
    expect(
        isinstance(value, list), str(path), "not a LongVideoBench annotation; give lvb_val.json."
    )
    questions = {}
    for number, row in enumerate(value, 1):
        try:
            groups = {field: row[field] for field in GROUPS}
            right = "abcdefghij"[row["correct_choice"]]
            questions[str(row["id"])] = {**groups, "letter": right}
        except (KeyError, TypeError, IndexError) as error:
            raise FileError(
                f"{path}, row {number}: not a LongVideoBench question ({error!r}); "
                "give lvb_val.json."
            ) from None
    return questions


def choice_question(question: str, options: Sequence[str]) -> str:
    """LongVideoBench: options are lettered from A., and the apostrophe is a curly one."""
    listed = "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options))
    return (
        f"Question: {question}\nOptions:\n{listed}\n"
        "Answer with the option\N{RIGHT SINGLE QUOTATION MARK}s letter from the given choices "
        "directly."
    )
