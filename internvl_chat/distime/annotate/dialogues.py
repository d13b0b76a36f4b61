"""The last stage: from located events to training items, a train and a held-out part of them.

One line of `selected.jsonl` at a time, with what people decided about it (`verdicts`), becomes
items of docs/DATA.md. Events come in the order of their starts, as in the published training data.
What is written passes `distime check`: what its rules refuse is left out before, counted and named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from distime.annotate.passes import by_the_first
from distime.annotate.records import AnnotationFolder, Dropped, RecordFile, Selected
from distime.annotate.templates import RESERVED, Templates, read_templates
from distime.annotate.verdicts import TimedEvent, VerdictLog, decided
from distime.backbones.template import VIDEO_TAG
from distime.data.meta import DataSource
from distime.data.problems import ERROR
from distime.data.schema import examine
from distime.errors import DisTimeError
from distime.files import write_json, written_whole
from distime.model.tokens import TIME_STAMP

if TYPE_CHECKING:
    from distime.annotate.run import AnnotationRun

LEFT_OUT = "left_out.jsonl"
PARTS = {"train": "meta", "held_out": "held_out"}
"""Annotation and meta file of each part, without their suffixes."""


class DialogueError(DisTimeError):
    """There is nothing to make dialogues of, or a flag does not fit; the message says which."""


@dataclass
class Dialogues:
    """What was made.

    Attributes:
        videos: by part.
        items: by part.
        events: that the items are about.
        kinds: items by kind.
        left_out: events that are in no item, by reason; `left_out.jsonl` names them.
        reviewed: decisions of people that were followed.
        meta: the meta files.
    """

    videos: Counter = field(default_factory=Counter)
    items: Counter = field(default_factory=Counter)
    events: int = 0
    kinds: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    reviewed: int = 0
    meta: list[Path] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield a summary."""
        made = [part for part in PARTS if self.items[part]]
        for part, meta in zip(made, self.meta, strict=True):
            yield f"{self.items[part]} items about {self.videos[part]} videos: {meta}"
        yield ", ".join(f"{number} {kind}" for kind, number in self.kinds.items())
        if self.reviewed:
            yield f"{self.reviewed} decisions of people were followed"
        for reason, number in self.left_out.most_common():
            yield f"{number} events are in no item ({LEFT_OUT} names them): {reason}"


def run(run: AnnotationRun) -> tuple[list[str], int]:
    """Write the training files; the first process does it, in one reading."""

    def write() -> list[str]:
        videos, held_out = run.settings.videos, run.settings.held_out
        made = write_dialogues(run.folder.root, videos, run.templates, held_out=held_out)
        return list(made.lines())

    return by_the_first(write), 0


def write_dialogues(
    folder: Path, videos: Path, templates: Templates | None = None, *, held_out: float = 0.1
) -> Dialogues:
    """Write `train.jsonl` with `meta.json`, and `held_out.jsonl` with `held_out.json`.

    Args:
        folder: of the annotation, with `selected.jsonl` and, where people looked, `reviewed.jsonl`.
        videos: folder that the videos' paths are relative to.
        templates: what is asked and answered; by default the built-in ones.
        held_out: share of the videos that is kept out of training.

    Raises:
        DialogueError: nothing is left to train.
        FileError, AnnotationError: a file cannot be read or written.
    """
    templates = templates or read_templates()
    made = Dialogues()
    source = DataSource("", videos, AnnotationFolder(folder).selected)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(_written(folder / f"{name}.jsonl")) for name in PARTS}
        lost = _Lost(stack.enter_context(_written(folder / LEFT_OUT)), made.left_out)
        for video in annotated_videos(folder, made, lost):
            part = "held_out" if is_held_out(video.name, held_out) else "train"
            events = [event for event in video.in_order() if lost.keeps(video, event, source)]
            made.events += len(events)
            made.videos[part] += bool(events)
            for kind, item in items_of(video.name, events, templates):
                made.kinds[kind] += 1
                made.items[part] += 1
                _write(files[part], item)
        if not made.items["train"]:
            others = made.videos["held_out"]
            why = f"all {others} are held out: give --held-out 0" if others else "none has an event"
            raise DialogueError(f"{AnnotationFolder(folder).selected}: no video to train on, {why}")
    for part, meta in PARTS.items():
        path = folder / f"{meta}.json"
        if not made.items[part]:
            for stale in (path, folder / f"{part}.jsonl"):
                stale.unlink(missing_ok=True)
            continue
        entry = {"root": str(videos.resolve()), "annotation": f"{part}.jsonl", "repeat_time": 1}
        entry |= {"length": made.items[part], "data_augment": False}
        write_json(path, {f"{folder.resolve().name} {part}": entry})
        made.meta.append(path)
    return made


@contextlib.contextmanager
def _written(path: Path) -> Iterator[IO[str]]:
    options = {"encoding": "utf-8", "errors": "replace"}
    with written_whole(path) as partial, partial.open("w", **options) as file:
        yield file


def _write(file: IO[str], value: Any) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class ToldVideo:
    """A video's events after selection and review; `duration` in seconds."""

    name: str
    duration: float
    events: Sequence[TimedEvent]

    def in_order(self) -> list[TimedEvent]:
        """Return the events by their starts, times rounded and cut to the video.

        They have two digits, as published annotations have, but do not reach beyond the end.
        """
        return sorted(
            (
                event._replace(
                    text=event.text.strip(),
                    start=min(round(event.start, 2), self.duration),
                    end=min(round(event.end, 2), self.duration),
                )
                for event in self.events
            ),
            key=lambda event: (event.start, event.end, event.id),
        )


def annotated_videos(folder: Path, made: Dialogues, lost: _Lost) -> Iterator[ToldVideo]:
    """Yield the videos of `selected.jsonl`, one at a time, with what people decided.

    Videos whose every event was dropped, and then accepted by a person, come last.

    Args:
        folder: of the annotation.
        made: counts the decisions.
        lost: takes decisions about events that are no longer there.

    Raises:
        AnnotationError: a line cannot be read.
        FileError: likewise of the decisions.
    """
    places = AnnotationFolder(folder)
    verdicts = VerdictLog(folder).verdicts()
    dropped: dict[str, set[str]] = {}
    if verdicts and places.dropped.exists():
        for one in RecordFile(places.dropped, Dropped):
            if one.video in verdicts:
                dropped.setdefault(one.video, set()).add(one.id)

    def of(selected: Selected) -> ToldVideo:
        known = {event.id for event in selected.events} | dropped.get(selected.video, set())
        mine = verdicts.pop(selected.video, {})
        for name in sorted(mine.keys() - known):
            one = mine.pop(name)
            lost.add(selected.video, name, one.text, "a person decided about it, but it is gone")
        made.reviewed += len(mine)
        return ToldVideo(selected.video, selected.duration, decided(selected.events, mine))

    for selected in RecordFile(places.selected, Selected):
        yield of(selected)
    for video in list(verdicts):
        duration = next(iter(verdicts[video].values())).duration
        yield of(Selected(video, duration))


def is_held_out(video: str, share: float) -> bool:
    """Whether a video is kept out of training: by its path alone, so it stays where it is."""
    digest = hashlib.sha256(video.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


# -------------------------------------------------------------------------------------- events


@dataclass
class _Lost:
    """Writes down the events that are in no item, and counts their reasons."""

    file: IO[str]
    reasons: Counter

    def add(self, video: str, event: str, text: str, reason: str) -> None:
        self.reasons[reason] += 1
        _write(self.file, {"video": video, "id": event, "text": text, "reason": reason})

    def keeps(self, video: ToldVideo, event: TimedEvent, source: DataSource) -> bool:
        """Whether an event can be trained."""
        reason = _fault(video, event, source)
        if reason is not None:
            self.add(video.name, event.id, event.text, reason)
        return reason is None


def _fault(video: ToldVideo, event: TimedEvent, source: DataSource) -> str | None:
    """Why an event cannot be trained: what the schema says of an item about it alone."""
    if token := next((token for token in RESERVED if token in event.text), None):
        return f"its words hold {token}"
    if event.start == event.end:
        return "its interval has no length within the video"
    turns = [("human", event.text), ("gpt", TIME_STAMP)]
    item, findings = examine(_item(video.name, turns, [event]), source, 0)
    if item is None:
        return next(message for severity, message in findings if severity == ERROR)
    return None if event.text else "it has no words"


# --------------------------------------------------------------------------------------- items


def items_of(
    video: str, events: Sequence[TimedEvent], templates: Templates
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the training items of a video, each behind its kind.

    Args:
        video: path below the folder of videos.
        events: in the order of their starts.
        templates: what is asked and answered.
    """
    for kind in ("retrieval", "description"):
        for event in events if kind in templates.of_kind else ():
            turns = _turns(kind, video, event, templates)
            yield kind, _item(video, turns, [event])
    if "dense" in templates.of_kind and events:
        template = templates.choose("dense", video)
        said = [template.fill(event.text) for event in events]
        turns = [("human", said[0][0]), ("gpt", " ".join(answer for _, answer in said))]
        yield "dense", _item(video, turns, events)
    if "conversation" in templates.of_kind and len(events) > 1:
        turns = [
            turn for event in events for turn in _turns("conversation", video, event, templates)
        ]
        yield "conversation", _item(video, turns, events)


def _turns(kind: str, video: str, event: TimedEvent, templates: Templates) -> list[tuple[str, str]]:
    asked, said = templates.choose(kind, video, event.id).fill(event.text)
    return [("human", asked), ("gpt", said)]


def _item(
    video: str, turns: Sequence[tuple[str, str]], events: Sequence[TimedEvent]
) -> dict[str, Any]:
    """An item in whose turns each of the events has one `<TIME_STAMP>`, in order."""
    (speaker, asked), *others = turns
    turns = [(speaker, f"{VIDEO_TAG}\n{asked}"), *others]
    return {
        "video": video,
        "tgt": [time for event in events for time in (event.start, event.end)],
        "conversations": [{"from": speaker, "value": text} for speaker, text in turns],
    }
