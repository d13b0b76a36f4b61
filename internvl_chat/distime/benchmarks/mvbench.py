"""MVBench: twenty tasks of multiple-choice questions, some about a part of the video."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distime.benchmarks.base import (
    UNANSWERED,
    Answered,
    Benchmark,
    Choice,
    Query,
    SettingsError,
)
from distime.benchmarks.result import Result
from distime.data.official import Conversion, Keep, Source
from distime.files import read_json, write_json
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
from distime.processing.questions import CHOOSE
from distime.values import expect, is_number

logger = logging.getLogger(__name__)

TASKS = {
    "Action Sequence": ("action_sequence", "star/Charades_v1_480"),
    "Action Prediction": ("action_prediction", "star/Charades_v1_480"),
    "Action Antonym": ("action_antonym", "ssv2_video"),
    "Fine-grained Action": ("fine_grained_action", "Moments_in_Time_Raw/videos"),
    "Unexpected Action": ("unexpected_action", "FunQA_test/test"),
    "Object Existence": ("object_existence", "clevrer/video_validation"),
    "Object Interaction": ("object_interaction", "star/Charades_v1_480"),
    "Object Shuffle": ("object_shuffle", "perception/videos"),
    "Moving Direction": ("moving_direction", "clevrer/video_validation"),
    "Action Localization": ("action_localization", "sta/sta_video"),
    "Scene Transition": ("scene_transition", "scene_qa/video"),
    "Action Count": ("action_count", "perception/videos"),
    "Moving Count": ("moving_count", "clevrer/video_validation"),
    "Moving Attribute": ("moving_attribute", "clevrer/video_validation"),
    "State Change": ("state_change", "perception/videos"),
    "Fine-grained Pose": ("fine_grained_pose", "nturgbd"),
    "Character Order": ("character_order", "perception/videos"),
    "Egocentric Navigation": ("egocentric_navigation", "vlnqa"),
    "Episodic Reasoning": ("episodic_reasoning", "tvqa/frames_fps3_hq"),
    "Counterfactual Inference": ("counterfactual_inference", "clevrer/video_validation"),
}
"""Task -> its annotation file (without .json) and the folder of its videos, as released."""

QUESTIONS_PER_TASK = 200

BOUNDED = {
    "Action Sequence",
    "Action Prediction",
    "Object Interaction",
    "Action Localization",
    "Episodic Reasoning",
}
"""Tasks whose questions are about the part from `start` to `end` (seconds)."""


class MVBench(Benchmark):
    """The annotation is the folder of the twenty files; tasks without a file are left out."""

    name = "mvbench"
    gif_fps = 25.0
    annotation_root = "data"
    annotation = "mvbench/json"
    videos = "mvbench/video"
    has_times = False
    title = "MVBench"
    rank = 7
    # The published raw file holds the rows of one process; the final one covers all.
    predictions = ("MVBench_result_final.json", "MVBench.json")
    scored_by_annotation = False
    headline = ("Avg",)
    released = {"Avg": 62.75}
    released_8b = {"Avg": 72.08}
    official_queries = 4000

    def queries(self) -> Iterator[Query]:
        """One query per entry of each task's file."""
        folder = self.settings.annotation
        files = {task: folder / f"{stem}.json" for task, (stem, _) in TASKS.items()}
        missing = [path.name for path in files.values() if not path.is_file()]
        if len(missing) == len(TASKS):
            raise SettingsError(
                f"--annotation {folder}: none of the {len(TASKS)} files {missing[0]}, ... is "
                "there; give the folder with the official files"
            )
        if missing:
            logger.warning("%s: without %s: tasks left out", folder, ", ".join(missing))
        try:
            for task, path in files.items():
                if path.name in missing:
                    continue
                for number, item in enumerate(self.read_annotation(path)):
                    video = f"{TASKS[task][1]}/{item['video']}"
                    question = choice_question(item["question"], item["candidates"])
                    bound = (item["start"], item["end"]) if task in BOUNDED else None
                    yield Query(f"{task}-{number}", video, question, (task, item), bound)
        except (KeyError, TypeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write all rows to `MVBench.json`, percentages to `MVBench_result_final.json`."""
        rows = []
        right: dict[str, list[bool]] = {}
        for query, answer in answered:
            task, item = query.item
            row = {
                "question": self.shown_question(query),
                "pred": answer.text if answer is not None else UNANSWERED,
                "gt": right_option(item),
                "task_type": task,
            }
            rows.append(row)
            options = options_in(query.question)
            is_right = names_right_option(ChoiceRow(row["pred"], row["gt"], task, options))
            right.setdefault(task, []).append(is_right)
        final = {task: 100 * sum(values) / len(values) for task, values in right.items()}
        final["Avg"] = 100 * sum(map(sum, right.values())) / len(rows)
        write_json(out_dir / "MVBench_result_final.json", final)
        path = out_dir / "MVBench.json"
        write_json(path, rows)
        return path

    def choice(self, query: Query, answer: Answer) -> Choice:
        """By the metric's rule."""
        task, item = query.item
        expected = right_option(item)
        row = ChoiceRow(answer.text, expected, task, options_in(query.question))
        return Choice(expected, names_right_option(row), bool(row.chosen))

    @classmethod
    def score(cls, pred_path: Path, gt_path: Path | None, *, published: bool = False) -> Result:
        """Score the rows of ``MVBench.json``, or take over ``MVBench_result_final.json``."""
        value, _ = read_json(pred_path, "MVBench.json or MVBench_result_final.json")
        if isinstance(value, dict):
            return _final(value, pred_path)
        rows = read_rows(value, pred_path)
        for number, row in enumerate(rows, 1):
            expect(
                letter(row.truth), f"{pred_path}, row {number}", f"gt {row.truth!r} has no letter."
            )
        unread = [row.answer for row in rows if not row.chosen]
        counts = {
            "questions": len(rows),
            "empty_answers": empty_answers(rows),
            "unread_answers": len(unread),
        }
        by_task: dict[str, list[ChoiceRow]] = defaultdict(list)
        for row in rows:
            by_task[row.task].append(row)
        counts |= {f"questions of {task}": len(part) for task, part in by_task.items()}
        warnings = []
        full = len(TASKS) * QUESTIONS_PER_TASK
        if len(rows) != full or any(len(p) != QUESTIONS_PER_TASK for p in by_task.values()):
            warnings.append(
                f"the file holds {len(rows)} rows of {len(by_task)} tasks, not {full} of "
                f"{len(TASKS)}: Avg is over these rows only (the published script saves the rows "
                "of its first process; its MVBench_result_final.json covers all)."
            )

        warnings += unread_warning(unread, len(rows))

        def table(rule: Callable[[ChoiceRow], bool]) -> dict[str, float]:
            return {
                **{task: percent(map(rule, part)) for task, part in by_task.items()},
                "Avg": percent(map(rule, rows)),
            }

        as_run = {}
        if published:
            as_run = {f"{name}_lenient": value for name, value in table(_as_run).items()}
        return Result("mvbench", table(names_right_option), counts, as_run, tuple(warnings))

    @staticmethod
    def convert(source: Source, keep: Keep) -> Conversion:
        """The twenty task files of MVBench; the format stays."""
        made = Conversion()
        for stem, folder in TASKS.values():
            items = source.json(f"{stem}.json")
            names = [f"{folder}/{item['video']}" for item in items]
            wanted = [item for item, name in zip(items, names, strict=True) if keep(name)]
            made.files[f"{stem}.json"] = wanted
            made.videos += names
        return made


def right_option(item: dict) -> str:
    """The right option as published files hold it, `(B) Down.`."""
    letter = chr(ord("A") + item["candidates"].index(item["answer"]))
    return f"({letter}) {item['answer']}"


def _final(value: dict[str, Any], path: Path) -> Result:
    for task, number in value.items():
        expect(
            is_number(number) and 0 <= number <= 100,
            f"{path}, {task}",
            f"expected a percentage, found {number!r}; give MVBench_result_final.json.",
        )
    expect("Avg" in value, str(path), "it has no Avg; give MVBench_result_final.json.")
    warning = "percentages taken over from a final file; they cannot be recomputed from it."
    return Result("mvbench", value, {"tasks": len(value) - 1}, {}, (warning,))


def _as_run(row: ChoiceRow) -> bool:
    # Substring either way: '' and '(' are within every '(a)'.
    first = row.answer.replace("Answer: ", "").lower().split(" ")[0]
    truth = row.truth.lower().split(" ")[0]
    return first.replace(".", "") in truth or truth in first


def choice_question(question: str, options: Sequence[str]) -> str:
    """MVBench: options are lettered from (A)."""
    listed = "\n".join(
        f"({chr(ord('A') + i)}) {option}" for i, option in enumerate(options)
    ).rstrip()
    return f"{CHOOSE}Question: {question}\nOptions:\n{listed}\nOnly give the best option."
