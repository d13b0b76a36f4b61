"""MVBench: twenty tasks of multiple-choice questions, some about a part of the video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from distime.evaluate.benchmark import (
    UNANSWERED,
    Answered,
    Benchmark,
    Choice,
    Query,
    SettingsError,
)
from distime.files import write_json
from distime.metrics.choices import options_in
from distime.metrics.multiple_choice import Row, names_right_option
from distime.processing.answers import Answer
from distime.processing.questions import mvbench_question

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
                    question = mvbench_question(item["question"], item["candidates"])
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
            is_right = names_right_option(Row(row["pred"], row["gt"], task, options))
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
        row = Row(answer.text, expected, task, options_in(query.question))
        return Choice(expected, names_right_option(row), bool(row.chosen))


def right_option(item: dict) -> str:
    """The right option as published files hold it, `(B) Down.`."""
    letter = chr(ord("A") + item["candidates"].index(item["answer"]))
    return f"({letter}) {item['answer']}"
