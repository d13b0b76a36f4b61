"""ActivityNet Captions: when does a sentence happen? (moment retrieval)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distime.evaluate.benchmark import Answered, Benchmark, Query, rounded_intervals
from distime.files import write_json
from distime.processing.answers import Event
from distime.processing.questions import moment_retrieval_question


class Anet(Benchmark):
    """Every interval of an answer is kept; the metric reads the first."""

    name = "anet"
    annotation = "anet/val_2.json"
    videos = "anet"

    def queries(self) -> Iterator[Query]:
        """One query per sentence of `val_2.json`."""
        try:
            for video, entry in self.read_annotation().items():
                pairs = zip(entry["sentences"], entry["timestamps"], strict=True)
                for number, (sentence, window) in enumerate(pairs):
                    question = moment_retrieval_question(sentence)
                    item = (number, sentence, window)
                    yield Query(f"{video}-{number}", video, question, item, title=sentence)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{"results": {"VIDEO-NUMBER": {"timestamp": [[s, e], ...], ...}}}`, seconds."""
        results = {}
        for query, answer in answered:
            if answer is not None:
                number, sentence, _ = query.item
                results[query.id] = {
                    "video_id": query.video,
                    "anno_id": number,
                    "timestamp": rounded_intervals(answer),
                    "query": sentence.strip(),
                }
        path = out_dir / "results.json"
        write_json(path, {"results": results})
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated window."""
        return [Event(*query.item[2])]
