"""YouCook2: which steps does a recipe have, and when? (dense video captioning)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distime.evaluate.benchmark import Answered, Benchmark, Query, captioned_events
from distime.files import write_json
from distime.processing.answers import Event
from distime.processing.questions import YOUCOOK2_CAPTIONING


class YouCook2(Benchmark):
    """One question for every video."""

    name = "youcook2_dvc"
    annotation = "youcook2_dvc/val.caption_coco_format.json"
    videos = "youcook2_dvc"

    def queries(self) -> Iterator[Query]:
        """One query per entry of `val.caption_coco_format.json`."""
        try:
            for item in self.read_annotation()["annotations"]:
                yield Query(item["image_id"], item["image_id"], YOUCOOK2_CAPTIONING, item)
        except (KeyError, TypeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `{video: [{"timestamp": [s, e], "caption"}]}`, seconds, not rounded."""
        results = {
            query.video: [
                {"timestamp": [event.start, event.end], "caption": event.text}
                for event in captioned_events(answer)
            ]
            for query, answer in answered
            if answer is not None
        }
        path = out_dir / "results.json"
        write_json(path, results)
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated steps."""
        steps = query.item["pure_cap"].split(". ")
        pairs = zip(query.item["segments"], steps, strict=False)
        return [Event(*segment, text=step) for segment, step in pairs]
