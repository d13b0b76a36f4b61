"""ActivityNet Captions: what happens in a video, and when? (dense video captioning)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from distime.evaluate.benchmark import Answered, Benchmark, Query, captioned_events
from distime.files import write_text
from distime.processing.answers import Event
from distime.processing.questions import ANET_CAPTIONING


class AnetDVC(Benchmark):
    """One question for every video."""

    name = "anet_dvc"
    annotation = "anet/val_2.json"
    videos = "anet"

    def queries(self) -> Iterator[Query]:
        """One query per video of `val_2.json`."""
        try:
            for video, item in self.read_annotation().items():
                yield Query(video, video, ANET_CAPTIONING, item)
        except (TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write JSON lines `{"video_id", "task", "time_unit", "answer"}`.

        `answer` is itself JSON: `[{"event", "timestamps": "S - E"}]`. The published file has whole
        seconds there, which its metric takes for percent; ours has seconds with all their digits
        and says so.
        """
        lines = []
        for query, answer in answered:
            if answer is not None:
                events = [
                    {"event": event.text, "timestamps": f"{event.start:.6f} - {event.end:.6f}"}
                    for event in captioned_events(answer)
                ]
                line = {"video_id": query.video, "task": "captioning", "time_unit": "seconds"}
                lines.append(json.dumps(line | {"answer": json.dumps(events)}))
        path = out_dir / "results.txt"
        write_text(path, "".join(f"{line}\n" for line in lines))
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated events."""
        pairs = zip(query.item["timestamps"], query.item["sentences"], strict=False)
        return [Event(*window, text=sentence.strip()) for window, sentence in pairs]
