"""Answers on disk as they come: one line of a `LineJournal` per video, below `<out_dir>/answers/`.

What decides the answers is `Settings.fingerprint`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distime.evaluate.answering import Task
from distime.evaluate.line_journal import LineJournal, whole_lines
from distime.evaluate.settings import Settings
from distime.processing.answers import Answer, Event, captions


@dataclass
class Records:
    """What is known of the tasks, by `Task.key`.

    Attributes:
        answers: one for each query, in order.
        failures: why a video could not be used.
        warnings: what was wrong with a video that was used all the same.
    """

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)


class Journal:
    """The answers of one run, written by this process and read from all.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: Settings):
        self.journal = LineJournal(
            settings.out_dir / "answers",
            settings.run_name,
            settings.fingerprint(),
            f"--out-dir {settings.out_dir}",
        )
        self.clear, self.close = self.journal.clear, self.journal.close

    def read(self) -> Records:
        """Read what all processes have written, now and before.

        Raises:
            SettingsError: a file was written with other settings; the message says which.
        """
        return _records(line for _, line in self.journal.lines())

    @staticmethod
    def read_finished(folder: Path, run_name: str) -> Records:
        """Read the answers below a results folder, whatever the settings of the run were."""
        paths = sorted((folder / "answers").glob(f"{run_name}-*.jsonl"))
        return _records(line for path in paths for _, line in islice(whole_lines(path), 1, None))

    def write(self, task: Task, answers: Sequence[Answer], warnings: Sequence[str] = ()) -> None:
        """Append a task's answers, in the order of its queries, and what to say of its video."""
        line = {"key": task.key, "video": task.video}
        line["answers"] = [answer_to_dict(answer) for answer in answers]
        self.journal.append(line | ({"warnings": list(warnings)} if warnings else {}))

    def write_failure(self, task: Task, reason: str) -> None:
        """Append that a task's video cannot be used."""
        self.journal.append({"key": task.key, "video": task.video, "failed": reason})


def _records(lines: Iterable[dict[str, Any]]) -> Records:
    records = Records()
    for line in lines:
        if "failed" in line:
            records.failures[line["key"]] = line["failed"]
        elif line["key"] not in records.answers:
            records.answers[line["key"]] = [answer_from_dict(value) for value in line["answers"]]
            records.warnings[line["key"]] = line.get("warnings", [])
    for key in records.answers:  # a video that failed once and was mended since
        records.failures.pop(key, None)
    return records


def answer_to_dict(answer: Answer) -> dict[str, Any]:
    """Return an answer as plain JSON types: times with every digit, probabilities with six."""
    values = answer.to_dict()
    for event in values["events"]:
        event.pop("text", None)  # part of the answer's text
        if "distribution" in event:
            event["distribution"] = [
                [float(f"{p:.6g}") for p in boundary] for boundary in event["distribution"]
            ]
    return values


def answer_from_dict(values: dict[str, Any]) -> Answer:
    """Rebuild the answer that `answer_to_dict` was given."""
    pieces = captions(values["text"])
    events = []
    for index, event in enumerate(values["events"]):
        bins = event.get("distribution")
        events.append(
            Event(
                event["start"],
                event["end"],
                math.nan if event["confidence"] is None else event["confidence"],
                None if bins is None else np.array(bins, dtype=np.float32),
                pieces[index] if index < len(pieces) else "",
            )
        )
    return Answer(values["text"], tuple(events), values["duration"])
