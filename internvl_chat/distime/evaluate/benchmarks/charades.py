"""Charades-STA: when does a sentence happen? (moment retrieval)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distime.evaluate.benchmark import Answered, Benchmark, Query, rounded_intervals
from distime.files import write_json
from distime.processing.answers import Event
from distime.processing.questions import moment_retrieval_question


class Charades(Benchmark):
    """Only the first interval of an answer counts."""

    name = "charades"
    annotation = "charades/test_float.json"
    ground_truth = "charades_sta_test.json"
    videos = "charades"

    def queries(self) -> Iterator[Query]:
        """One query per entry of `test_float.json`."""
        try:
            for number, item in enumerate(self.read_annotation()):
                question = moment_retrieval_question(item["query"])
                yield Query(str(number), item["video"], question, item, title=item["query"])
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{video: {query: {"start", "end", "conf"}}}`, seconds."""
        results: dict[str, dict] = {}
        for query, answer in answered:
            if answer is not None:
                start, end = rounded_intervals(answer)[0]
                entry = {"start": start, "end": end, "conf": 1}
                results.setdefault(query.video, {})[query.item["query"].strip()] = entry
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated windows."""
        return [Event(*window) for window in query.item["relevant_windows"]]
