"""QVHighlights: when does a sentence happen, once or several times? (moment retrieval)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distime.evaluate.benchmark import Answered, Benchmark, Query, rounded_intervals
from distime.files import write_json
from distime.processing.answers import Event
from distime.processing.questions import moment_retrieval_question


class QVHighlights(Benchmark):
    """Every interval of an answer is kept, in order."""

    name = "qvh"
    annotation = "qvhighlights/val.json"
    videos = "qvhighlights"

    def queries(self) -> Iterator[Query]:
        """One query per entry of `val.json`."""
        try:
            for item in self.read_annotation():
                question = moment_retrieval_question(item["query"])
                yield Query(str(item["qid"]), item["video"], question, item, title=item["query"])
        except (KeyError, TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"qid", "query", "prediction", "target", "duration"}]`; lists as strings."""
        results = [
            {
                "qid": query.item["qid"],
                "query": query.item["query"],
                "prediction": str(rounded_intervals(answer)),
                "target": str(query.item["relevant_windows"]),
                "duration": answer.duration,
            }
            for query, answer in answered
            if answer is not None
        ]
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated windows."""
        return [Event(*window) for window in query.item["relevant_windows"]]
