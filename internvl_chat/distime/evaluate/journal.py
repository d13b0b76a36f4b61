"""Answers on disk as they come, so that a killed run continues where it stopped.

Every process appends to a file of its own under `<out_dir>/answers/`, one line per video, and
begins a new file when it is started again. A line is written in one piece and counts only with
its newline, so a line that a kill cut short is as if it had never been begun. The first line
holds what decides the answers (`Settings.fingerprint`): files of other settings are refused.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distime.benchmarks.base import SettingsError
from distime.evaluate.answering import Task
from distime.evaluate.settings import Settings
from distime.processing.answers import Answer, Event, captions

logger = logging.getLogger(__name__)


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
        self.folder = settings.out_dir / "answers"
        self.run_name = settings.run_name
        self.header = {"settings": settings.fingerprint()}
        self._stream = None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.run_name}-*.jsonl"))

    def clear(self) -> None:
        """Remove the answers of earlier runs."""
        for path in self._files():
            path.unlink()

    def read(self) -> Records:
        """Read what all processes have written, now and before.

        Raises:
            SettingsError: a file was written with other settings; the message says which.
        """
        files = [(path, _whole_lines(path) or [self.header]) for path in self._files()]
        for path, (header, *_) in files:
            self._check(path, header)
        return _records(lines for _, (_, *lines) in files)

    @staticmethod
    def read_finished(folder: Path, run_name: str) -> Records:
        """Read the answers below a results folder, whatever the settings of the run were."""
        paths = sorted((folder / "answers").glob(f"{run_name}-*.jsonl"))
        return _records(_whole_lines(path)[1:] for path in paths)

    def _check(self, path: Path, header: dict[str, Any]) -> None:
        before, now = header.get("settings", {}), self.header["settings"]
        different = [name for name in now if before.get(name) != now[name]]
        if different:
            changes = "; ".join(f"{n} was {before.get(n)}, is {now[n]}" for n in different)
            raise SettingsError(
                f"--out-dir {self.folder.parent}: it holds answers of a run with other settings "
                f"({changes}): give another --out-dir, or --overwrite to discard them "
                f"(seen in {path.name})"
            )

    def write(self, task: Task, answers: Sequence[Answer], warnings: Sequence[str] = ()) -> None:
        """Append a task's answers, in the order of its queries, and what to say of its video."""
        line = {"key": task.key, "video": task.video}
        line["answers"] = [answer_to_dict(answer) for answer in answers]
        self._append(line | ({"warnings": list(warnings)} if warnings else {}))

    def write_failure(self, task: Task, reason: str) -> None:
        """Append that a task's video cannot be used."""
        self._append({"key": task.key, "video": task.video, "failed": reason})

    def _append(self, line: dict[str, Any]) -> None:
        if self._stream is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.NamedTemporaryFile(  # noqa: SIM115 (open until close())
                "w",
                encoding="utf-8",
                dir=self.folder,
                prefix=f"{self.run_name}-",
                suffix=".jsonl",
                delete=False,
            )
            self._stream.write(json.dumps(self.header) + "\n")
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file of this process."""
        if self._stream is not None:
            self._stream.close()


def _records(files: Iterable[Sequence[dict[str, Any]]]) -> Records:
    records = Records()
    for lines in files:
        for line in lines:
            if "failed" in line:
                records.failures[line["key"]] = line["failed"]
            else:
                answers = [answer_from_dict(value) for value in line["answers"]]
                if line["key"] not in records.answers:
                    records.answers[line["key"]] = answers
                    records.warnings[line["key"]] = line.get("warnings", [])
    for key in records.answers:  # a video that failed once and was mended since
        records.failures.pop(key, None)
    return records


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    *whole, torn = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if torn:
        logger.warning("%s: the last line was cut short; its video is asked again", path.name)
    return [json.loads(line) for line in whole]


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
