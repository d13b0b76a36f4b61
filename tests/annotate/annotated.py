"""A folder as `distime annotate` leaves it, made by hand: two locators, kept and dropped events."""

from __future__ import annotations

import json
from pathlib import Path

from distime.annotate.records import (
    AnnotationFolder,
    Candidate,
    Described,
    Dropped,
    EventText,
    Located,
    Location,
    Selected,
    SelectedEvent,
    Trouble,
    write_records,
)

LOCATORS = ("one", "two")


def write_annotation(folder: Path, videos: Path, counts: dict[str, int], duration=20.0) -> Path:
    """Write an annotation of some videos, each with a number of kept events and one dropped.

    Event k of a video is "thing K happens." from 2k to 2k + 1.5 s; the second locator is later by a
    tenth of a second for each video before it, so that the last video has the worst agreement.
    """
    places = AnnotationFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    described, selected, dropped = [], [], []
    located = {name: [] for name in LOCATORS}
    for number, (video, count) in enumerate(counts.items()):
        late = 0.1 * number
        texts = [f"thing {k} happens." for k in range(count)] + ["nobody sees this."]
        events = [EventText(f"{number}-{k}", text, ("mine",)) for k, text in enumerate(texts)]
        described.append(Described(video, duration, tuple(events)))
        first = {e.id: Location(2.0 * k, 2.0 * k + 1.5, 0.9) for k, e in enumerate(events)}
        second = {i: Location(w.start + late, w.end + late, 0.5) for i, w in first.items()}
        for name, locations in zip(LOCATORS, (first, second), strict=True):
            located[name].append(Located(video, locations))
        agreement = (1.5 - late) / (1.5 + late)
        kept = [
            SelectedEvent(
                e.id, e.text, first[e.id].start, first[e.id].end, 0.8, "one", agreement, 0.9
            )
            for e in events[:-1]
        ]
        if kept:
            selected.append(Selected(video, duration, tuple(kept)))
        lost = events[-1]
        candidates = {
            name: Candidate(window.start, window.end, 0.2, 0.1)
            for name, window in zip(LOCATORS, (first[lost.id], second[lost.id]), strict=True)
        }
        reason = "agreement 0.10 is below 0.3"
        dropped.append(
            Dropped(video, lost.id, lost.text, reason, 0.2, 0.1, None, None, "one", candidates)
        )
    write_records(places.events, described)
    write_records(places.selected, selected)
    write_records(places.dropped, dropped)
    write_records(places.problems, [Trouble("broken.mp4", "events", "mine", "it is empty")])
    for name in LOCATORS:
        places.locations(name).parent.mkdir(exist_ok=True)
        write_records(places.locations(name), located[name])
    places.settings.write_text(json.dumps({"videos": str(videos)}))
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
