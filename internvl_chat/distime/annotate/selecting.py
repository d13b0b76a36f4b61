"""Stage 4: which events to keep, and where each of them is best located.

The formula is ours; the published engine takes the location of the highest text-video similarity
and drops nothing. A location is judged by up to three numbers from 0 to 1:

* consensus: its mean IoU with the locations of the other locators;
* confidence: of the locator in itself;
* similarity: the probability that one of its frames fits the words better than one of the rest.

Its score is the geometric mean of those that are known: each of them must hold. The best location
has the highest score. The agreement of an event is the mean IoU over all pairs of its locations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

from distime.annotate.passes import NothingLeftError, by_the_first
from distime.annotate.records import (
    Candidate,
    Compared,
    Described,
    Dropped,
    EventText,
    Located,
    Location,
    RecordFile,
    Selected,
    SelectedEvent,
    record_writer,
)
from distime.data.problems import kind_of
from distime.metrics.intervals import iou

if TYPE_CHECKING:
    from distime.annotate.annotation_settings import AnnotationSettings
    from distime.annotate.run import AnnotationRun

THRESHOLDS = ("agreement", "confidence", "similarity", "score")
"""What `--min-...` is for, in the order in which reasons name them."""


def judge(
    locations: Mapping[str, Location], similarities: Mapping[str, float]
) -> tuple[dict[str, Candidate], float | None]:
    """Score the locations of one event.

    Args:
        locations: by locator.
        similarities: by locator, where they are known.

    Returns:
        the candidates by locator, the best one first (of equals the one named first), and the
        event's agreement, None with fewer than two.
    """
    pairs = {(a, b): _iou(locations[a], locations[b]) for a, b in combinations(locations, 2)}
    found = {}
    for name, location in locations.items():
        with_it = [value for pair, value in pairs.items() if name in pair]
        consensus = _mean(with_it)
        similarity = similarities.get(name)
        known = [v for v in (consensus, location.confidence, similarity) if v is not None]
        score = math.prod(known) ** (1 / len(known)) if known else 0.0
        found[name] = Candidate(
            location.start,
            location.end,
            round(score, 4),
            None if consensus is None else round(consensus, 4),
            location.confidence,
            similarity,
        )
    best_first = sorted(found.items(), key=lambda item: -item[1].score)
    agreement = _mean(list(pairs.values()))
    return dict(best_first), None if agreement is None else round(agreement, 4)


def select(
    event: EventText,
    video: str,
    locations: Mapping[str, Location],
    similarities: Mapping[str, float],
    settings: AnnotationSettings,
) -> SelectedEvent | Dropped:
    """Keep an event at its best location, or say why not.

    A threshold on a number that is not known (agreement of one locator, say) drops the event.
    """
    if not locations:
        return Dropped(video, event.id, event.text, "no locator found it")
    candidates, agreement = judge(locations, similarities)
    locator, best = next(iter(candidates.items()))
    known = {
        "agreement": agreement,
        "confidence": best.confidence,
        "similarity": best.similarity,
        "score": best.score,
    }
    reasons = []
    for name in THRESHOLDS:
        least = getattr(settings, f"min_{name}")
        if least is None:
            continue
        if known[name] is None:
            reasons.append(f"{name} is not known")
        elif known[name] < least:
            reasons.append(f"{name} {known[name]:.2f} is below {least:g}")
    if reasons:
        return Dropped(
            video, event.id, event.text, "; ".join(reasons), **known, locator=locator,
            candidates=candidates,
        )  # fmt: skip
    return SelectedEvent(event.id, event.text, best.start, best.end, locator=locator, **known)


def run(run: AnnotationRun) -> tuple[list[str], int]:
    """Write `selected.jsonl` and `dropped.jsonl`; the first process does it, in one reading."""
    return by_the_first(lambda: _select_all(run)), 0


def _select_all(run: AnnotationRun) -> list[str]:
    folder = run.folder
    events = RecordFile(folder.events, Described)
    files = {name: RecordFile(folder.locations(name), Located) for name in run.locator_names}
    compared = _compared(run)
    reasons: Counter[str] = Counter()
    kept = total = videos = stale = 0
    with record_writer(folder.selected) as keep, record_writer(folder.dropped) as drop:
        for described in events:
            video = described.video
            located = {name: file.of_video(video) for name, file in files.items()}
            located = {name: one.locations for name, one in located.items() if one is not None}
            ids = {event.id for event in described.events}
            stale += any(one.keys() - ids for one in located.values())
            similar = compared and compared.of_video(video)
            good = []
            for event in described.events:
                found = {name: one[event.id] for name, one in located.items() if event.id in one}
                similarities = similar.similarities.get(event.id, {}) if similar else {}
                one = select(event, video, found, similarities, run.settings)
                if isinstance(one, Dropped):
                    drop(one)
                    reasons[kind_of(one.reason)] += 1
                else:
                    good.append(one)
            if good:
                keep(Selected(video, described.duration, tuple(good)))
            kept, total = kept + len(good), total + len(ids)
            videos += bool(good)
        if stale:
            raise NothingLeftError(
                f"{folder.locations('x').parent}: the locations of {stale} videos are of other "
                "events than those of events.jsonl; run the stage locations again"
            )
    return [
        f"{kept} of {total} events were kept, in {videos} videos",
        *(f"{count} dropped: {reason}" for reason, count in reasons.most_common()),
    ]


def _compared(run: AnnotationRun) -> RecordFile[Compared] | None:
    """The similarities, if this run computed them, or takes what an earlier one left."""
    path = run.folder.similarity
    if not path.is_file() or (run.comparer is None and "similarity" in run.settings.stages):
        return None
    newest = max(run.folder.locations(name).stat().st_mtime_ns for name in run.locator_names)
    if path.stat().st_mtime_ns < newest:
        raise NothingLeftError(
            f"{path}: it is older than the locations; run the stage similarity again, or remove it"
        )
    return RecordFile(path, Compared)


def _iou(a: Location, b: Location) -> float:
    return float(iou((a.start, a.end), (b.start, b.end)))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
