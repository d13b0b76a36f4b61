"""Locations from a file, so that any other model can take part (UniMD, Mr.BLIP, TFVTG, ...).

One line per prediction; the event is named by its id in `events.jsonl` or by its words:

    {"video": "a.mp4", "id": "v0c4e1f2a9b37-0", "start": 1.5, "end": 4.0, "confidence": 0.7}
    {"video": "a.mp4", "query": "A man opens a door.", "start": 1.5, "end": 4.0}

Of several for one event the first with the highest confidence counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from distime.annotate.annotator import Clip, UnusableError
from distime.annotate.lines_by_video import LinesByVideo, ToldByFile, confidence_of, times_of
from distime.annotate.locator import Locator, not_found, rounded
from distime.annotate.records import Described, Located, RecordFile
from distime.data.problems import AnnotationError, show

if TYPE_CHECKING:
    from distime.annotate.annotation_settings import AnnotationSettings


class Prediction(NamedTuple):
    """One line: `event` is an id, or words; times are seconds."""

    event: str
    start: float
    end: float
    confidence: float | None


class PredictionsFile(ToldByFile, Locator):
    """Takes what the file says of each event."""

    kind: ClassVar[str] = "file"
    target_form: ClassVar[str] = "NAME=PREDICTIONS.jsonl"

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        self.lines = LinesByVideo(f"--locator file:{target}", Path(target), read_line)

    def check(self, events: RecordFile[Described]) -> None:
        """Refuse predictions of other events, and intervals of other videos.

        Raises:
            AnnotationError: there are some; names the first line, and how many there are.
        """
        wrong = []
        for video in self.lines.videos:
            described = events.of_video(video)
            if described is None:
                continue  # a problem of the stage before
            known = _events_by_name(described)
            for place, one in self.lines.of(video):
                if one.event not in known:
                    wrong.append(
                        f"{place}: {video} has no event {show(one.event)}: give an id or the words "
                        f"of an event of {events.path}"
                    )
                elif one.start >= described.duration:
                    wrong.append(
                        f"{place}: interval [{one.start}, {one.end}] lies behind the end of {video}"
                        f", which lasts {described.duration} s: is it of another video?"
                    )
        if wrong:
            more = f" ({len(wrong)} lines of the file are wrong)" if len(wrong) > 1 else ""
            raise AnnotationError(wrong[0] + more)

    def answer(self, clip: Clip, loaded: None) -> tuple[Located, Sequence[str]]:
        """See `Annotator.answer`."""
        described = clip.described
        known = _events_by_name(described)
        best: dict[str, Prediction] = {}
        cut = 0
        for _, one in self.lines.of(clip.video):
            event = known[one.event]
            kept = best.get(event)
            if kept is None or (one.confidence or 0) > (kept.confidence or 0):
                best[event] = one
        if not best:
            raise UnusableError(f"{self.target} has no prediction for {clip.video}: add them")
        found = {}
        for event, one in best.items():
            cut += one.end > described.duration + 0.01
            location = rounded(one.start, one.end, one.confidence, described.duration)
            if location is not None:
                found[event] = location
        missing = [event for event in described.events if event.id not in found]
        notes = not_found(missing, len(described.events), f"{self.target} has none")
        if cut:
            notes.append(f"{cut} predictions end beyond the video and were cut there")
        return Located(clip.video, found), notes


def read_line(values: dict[str, Any]) -> Prediction:
    """Return the prediction of a line.

    Raises:
        AnnotationError: it is none; says the mend, names no line.
    """
    event = values.get("id", values.get("query"))
    if not isinstance(event, str) or not event.strip():
        raise AnnotationError(f'the event is {show(event)}: give its "id", or its words as "query"')
    return Prediction(" ".join(event.split()), *times_of(values), confidence_of(values))


def _events_by_name(described: Described) -> dict[str, str]:
    """The ids of events by their ids and by all of their words."""
    named = {
        words: event.id
        for event in reversed(described.events)
        for words in (*event.merged, event.text)
    }
    return named | {event.id: event.id for event in described.events}
