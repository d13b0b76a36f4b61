"""LongVideoBench: multiple-choice questions about videos of up to an hour."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distime.data.video_finder import without_suffix
from distime.evaluate.benchmark import (
    UNANSWERED,
    Answered,
    Benchmark,
    Choice,
    Query,
)
from distime.files import read_json, write_json
from distime.metrics.choices import options_in
from distime.metrics.files import MetricError
from distime.metrics.multiple_choice import Row, names_right_option
from distime.processing.answers import Answer
from distime.processing.questions import longvideobench_question
from distime.processing.video import VideoError

if TYPE_CHECKING:
    from distime.evaluate.subtitles import Subtitle
    from distime.processing.processor import DisTimeProcessor


class LongVideoBench(Benchmark):
    """Frames alone, as published; with `--subtitles` also what is said."""

    name = "longvideobench"
    annotation = "longvideobench/lvb_val.json"
    videos = "longvideobench"
    num_segments = 32
    rule = "longvideobench"
    has_times = False

    @cached_property
    def _items(self) -> list[dict]:
        return self.read_annotation()

    def queries(self) -> Iterator[Query]:
        """One query per entry of `lvb_val.json`."""
        try:
            for item in self._items:
                question = longvideobench_question(item["question"], item["candidates"])
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
            names_right_option(Row(row["pred"], row["gt"], "", options_in(query.question)))
            for row, (query, _) in zip(rows, answered, strict=True)
        ]
        write_json(out_dir / "metrics.json", {"Accuracy_overall": sum(right) / len(right)})
        path = out_dir / "result.json"
        write_json(path, rows)
        return path

    def choice(self, query: Query, answer: Answer) -> Choice:
        """By the metric's rule."""
        expected = right_option(query.item)
        row = Row(answer.text, expected, "", options_in(query.question))
        return Choice(expected, names_right_option(row), bool(row.chosen))

    def processor(self, processor: DisTimeProcessor) -> DisTimeProcessor:
        """With `--subtitles`, show them between the frames."""
        if self.settings.subtitles is None:
            return processor
        # A processor needs torch, for which `--help` must not wait.
        from distime.evaluate.subtitles import SubtitledProcessor

        items = {without_suffix(Path(video_name(item)).name): item for item in self._items}
        return SubtitledProcessor(processor, lambda path: self._subtitles(items, path))

    def _subtitles(self, items: dict[str, dict], path: Path) -> list[Subtitle]:
        from distime.evaluate.subtitles import read_subtitles

        item = items[without_suffix(path.name)]
        file = self.settings.subtitles / item["subtitle_path"]
        try:
            entries, _ = read_json(file, "subtitle file")
            return read_subtitles(entries, item.get("starting_timestamp_for_subtitles", 0))
        except (MetricError, KeyError, TypeError, ValueError) as error:
            raise VideoError(f"{path}: its subtitles cannot be read ({error}): {file}") from None


def video_name(item: dict) -> str:
    """The video's file, or its id where the annotation names no file."""
    return item.get("video_path") or item["video_id"]


def right_option(item: dict) -> str:
    """The right option, `B. It rains.`."""
    number = item["correct_choice"]
    return f"{chr(ord('A') + number)}. {item['candidates'][number]}"
