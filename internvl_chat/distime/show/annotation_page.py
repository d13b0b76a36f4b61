"""A page about an annotation: what was found, kept and dropped, and what it looks like.

The files are read line by line; of each event a few numbers are kept, and the examples.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distime.annotate.records import (
    AnnotationFolder,
    Described,
    Dropped,
    Located,
    Location,
    RecordFile,
    Selected,
    SelectedEvent,
    Trouble,
)
from distime.annotate.verdicts import VerdictLog
from distime.data.problems import kind_of
from distime.errors import DisTimeError
from distime.files import read_json
from distime.processing.answers import Event
from distime.processing.video import VideoError, open_video
from distime.show.charts import bar_chart
from distime.show.report import note, table_html, write_page
from distime.show.timeline import timeline_svg

SCORES = ("agreement", "confidence", "similarity", "score")
_FRAMES, _INSIDE, _HEIGHT = 7, 4, 90  # of an example: all over it, in the event; pixels
_STYLE = """<style>
.frames { display: flex; gap: 3px; flex-wrap: wrap; margin: 0.5rem 0 }
.frames img { border: 3px solid transparent }
.frames img.inside { border-color: #6a4c93 }
</style>"""


class AnnotationPageError(DisTimeError):
    """There is nothing to show; the message says which stage makes it."""


class Worst:
    """The few things with the lowest values, the lowest first; of equals those that came first."""

    def __init__(self, most: int):
        self.most, self._heap, self._number = most, [], count()

    def add(self, value: float, thing: Any) -> None:
        """Keep a thing if it is one of them."""
        entry = (-value, -next(self._number), thing)
        if len(self._heap) < self.most:
            heappush(self._heap, entry)
        elif self.most:
            heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[Any]:
        return (thing for _, _, thing in sorted(self._heap, reverse=True))


@dataclass
class Found:
    """What the files say, in numbers.

    Attributes:
        durations: of every described video, in seconds.
        described: events of each of them.
        kept: of them, those that were kept; for each video that has some.
        lengths: of every kept event, in seconds.
        shares: its length as a share of its video.
        middles: its middle, as a share of its video.
        words: how many words each kept event has.
        scores: values of every kept event, by `SCORES`.
        vocabulary: the words of all kept events.
        sources: events by captioner.
        locators: kept events by the locator of their interval.
        reasons: dropped events by reason.
        samples: the first events of each reason.
        troubles: problems by stage, annotator and kind.
        trouble_samples: the first of each kind.
        verdicts: decisions of people.
        worst: kept events of the worst agreement, each with its video and duration.
        lost: dropped events of the worst agreement.
    """

    durations: array = field(default_factory=lambda: array("d"))
    described: array = field(default_factory=lambda: array("l"))
    kept: array = field(default_factory=lambda: array("l"))
    lengths: array = field(default_factory=lambda: array("d"))
    shares: array = field(default_factory=lambda: array("d"))
    middles: array = field(default_factory=lambda: array("d"))
    words: array = field(default_factory=lambda: array("l"))
    scores: dict[str, array] = field(default_factory=lambda: {name: array("d") for name in SCORES})
    vocabulary: Counter = field(default_factory=Counter)
    sources: Counter = field(default_factory=Counter)
    locators: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    troubles: Counter = field(default_factory=Counter)
    trouble_samples: dict[tuple, str] = field(default_factory=dict)
    verdicts: Counter = field(default_factory=Counter)
    worst: Worst = field(default_factory=lambda: Worst(0))
    lost: Worst = field(default_factory=lambda: Worst(0))


def write_annotation_page(
    folder: Path, *, examples: int = 8, videos: Path | None = None, path: Path | None = None
) -> Path:
    """Write `report.html` of an annotation: one file that fetches nothing.

    Args:
        folder: of the annotation.
        examples: how many kept and how many dropped events to show, those of the worst agreement.
        videos: folder of the videos, if they are no longer where they were.
        path: of the page, if not in the folder.

    Raises:
        AnnotationPageError: nothing was selected yet.
        AnnotationError, FileError: a file cannot be read or written.
    """
    places = AnnotationFolder(folder)
    if not places.selected.is_file():
        raise AnnotationPageError(
            f"{places.selected}: not there; give the --out of `distime annotate`, its stage "
            "selection done"
        )
    root = videos or Path(read_json(places.settings, "settings of a run")[0]["videos"])
    found = read_numbers(places, examples)
    page = path or folder / "report.html"
    body = [
        _STYLE,
        *numbers_html(found),
        *words_html(found),
        *lost_html(found),
        *examples_html(found, places, root),
    ]
    write_page(page, f"Annotation {folder.resolve().name}", body)
    return page


def read_numbers(places: AnnotationFolder, examples: int) -> Found:
    """Read the files of an annotation, line by line."""
    found = Found(worst=Worst(examples), lost=Worst(examples))
    lengths: dict[str, float] = {}
    for described in RecordFile(places.events, Described):
        found.durations.append(described.duration)
        found.described.append(len(described.events))
        lengths[described.video] = described.duration
        for event in described.events:
            found.sources.update(event.sources)
    for selected in RecordFile(places.selected, Selected):
        found.kept.append(len(selected.events))
        for event in selected.events:
            _count(found, selected, event)
    for dropped in RecordFile(places.dropped, Dropped):
        kind = kind_of(dropped.reason)
        found.reasons[kind] += 1
        if len(found.samples[kind]) < 3:
            found.samples[kind].append(f"{dropped.video}: {dropped.text} ({dropped.reason})")
        if dropped.candidates:
            value = math.inf if dropped.agreement is None else dropped.agreement
            duration = lengths.get(dropped.video, 0.0)
            found.lost.add(value, (dropped.video, duration, dropped))
    for trouble in RecordFile(places.problems, Trouble) if places.problems.exists() else ():
        key = (trouble.stage, trouble.by, kind_of(trouble.why))
        found.troubles[key] += 1
        found.trouble_samples.setdefault(key, f"{trouble.video or 'all'}: {trouble.why}")
    verdicts = VerdictLog(places.root).verdicts().values()
    found.verdicts.update(one.verdict for some in verdicts for one in some.values())
    return found


def _count(found: Found, selected: Selected, event: SelectedEvent) -> None:
    length, duration = event.end - event.start, max(selected.duration, 1e-9)
    found.lengths.append(length)
    found.shares.append(length / duration)
    found.middles.append((event.start + event.end) / 2 / duration)
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", event.text.lower())
    found.words.append(len(words))
    found.vocabulary.update(words)
    found.locators[event.locator] += 1
    for name in SCORES:
        if (value := getattr(event, name)) is not None:
            found.scores[name].append(value)
    value = math.inf if event.agreement is None else event.agreement
    found.worst.add(value, (selected.video, selected.duration, event))


# ------------------------------------------------------------------------------------ sections


def numbers_html(found: Found) -> Iterator[str]:
    """Counts, durations, events per video, positions and lengths of intervals, scores."""
    kept, total = len(found.lengths), sum(found.described)
    rows: list[list[Any]] = [
        ["videos", len(found.durations)],
        ["hours of video", sum(found.durations) / 3600],
        ["videos with kept events", len(found.kept)],
        ["events", total],
        ["kept", kept],
        ["dropped", sum(found.reasons.values())],
        ["kept events of a video, on average", _mean(found.kept)],
        ["length of a kept event in seconds, on average", _mean(found.lengths)],
        ["words of a kept event, on average", _mean(found.words)],
    ]
    rows += [[f"{verdict} by people", number] for verdict, number in found.verdicts.items()]
    yield table_html(rows)
    yield table_html(
        [[name, n] for name, n in found.sources.most_common()], ["captioner", "events"]
    )
    if not kept:
        yield note("No event was kept: there is nothing to draw.")
        return
    located = [[name, number] for name, number in found.locators.most_common()]
    yield table_html(located, ["locator", "kept events located by it"])
    yield "<h2>Videos</h2>"
    yield histogram(found.durations, "durations of videos", "seconds")
    yield counts(found.kept, "kept events of a video")
    yield "<h2>Intervals</h2>"
    yield histogram(found.middles, "where events are", "middle, as a share of the video", (0, 1))
    yield histogram(found.lengths, "lengths of events", "seconds")
    yield histogram(found.shares, "lengths of events", "share of the video", (0, 1))
    yield "<h2>How sure they are</h2>"
    for name in SCORES:
        if found.scores[name]:
            yield histogram(found.scores[name], name, "of kept events", (0, 1))
    unknown = [name for name in SCORES if not found.scores[name]]
    if unknown:
        yield note(f"Of no kept event is known: {', '.join(unknown)}.")


def words_html(found: Found) -> Iterator[str]:
    """How many words events have, and which are frequent."""
    if not found.vocabulary:
        return
    yield "<h2>Words</h2>"
    yield counts(found.words, "words of an event")
    yield f"<p>{len(found.vocabulary)} different words. The most frequent ones:</p>"
    shown = ", ".join(f"{word} {number}" for word, number in found.vocabulary.most_common(40))
    yield f"<p>{html.escape(shown)}</p>"


def lost_html(found: Found) -> Iterator[str]:
    """What was dropped or could not be used, and why."""
    yield "<h2>What was dropped, and why</h2>"
    rows = [
        [number, kind, " | ".join(found.samples[kind])]
        for kind, number in found.reasons.most_common()
    ]
    yield table_html(rows, ["events", "reason", "such as"]) or note("Nothing was dropped.")
    if found.troubles:
        yield "<h2>What could not be used</h2>"
        rows = [
            [number, stage, by, found.trouble_samples[stage, by, kind]]
            for (stage, by, kind), number in found.troubles.most_common()
        ]
        yield table_html(rows, ["times", "stage", "by", "such as"])


def histogram(
    values: Sequence[float], title: str, axis: str, bounds: tuple[float, float] | None = None
) -> str:
    """Bars of equal width over values; without bounds up to the 99th percentile, the rest last."""
    values = np.asarray(values)
    low, high = bounds or (0.0, float(np.percentile(values, 99)) or 1.0)
    heights, edges = np.histogram(values.clip(low, high), bins=20, range=(low, high))
    labels = [f"{edge:.2g}" if n % 4 == 0 else "" for n, edge in enumerate(edges[:-1])]
    over = int((values > high).sum())
    beyond = f"; {over} beyond {high:.3g} are in the last bar" if over else ""
    axis = f"{title}: {axis}{beyond}"
    return bar_chart(heights.tolist(), labels, title=title, axis=axis, notes=_notes(heights))


def counts(values: Sequence[int], title: str, most: int = 24) -> str:
    """A bar for each number; those beyond the last bar are in it."""
    values = np.asarray(values)
    last = min(int(values.max(initial=0)), most)
    heights = np.bincount(values.clip(max=last), minlength=last + 1)
    labels = [f"{n}{'+' if n == last and values.max() > last else ''}" for n in range(last + 1)]
    return bar_chart(heights.tolist(), labels, title=title, axis=title, notes=_notes(heights))


def _notes(heights: np.ndarray) -> list[str]:
    return [str(height) if height else "" for height in heights.tolist()]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


# ------------------------------------------------------------------------------------ examples


def examples_html(found: Found, places: AnnotationFolder, root: Path) -> Iterator[str]:
    """Kept and dropped events of the worst agreement, with frames and all locations."""
    worst, lost = list(found.worst), list(found.lost)
    names = {video for video, _, _ in chain(worst, lost)}
    files = {
        path.name.removesuffix(".jsonl"): path
        for path in sorted(places.locations("x").parent.glob("*.jsonl"))
    }
    located = {
        (locator, one.video): one.locations
        for locator, path in files.items()
        for one in RecordFile(path, Located)
        if one.video in names
    }

    def locations(video: str, event: str) -> dict[str, Location]:
        found = {locator: located.get((locator, video), {}).get(event) for locator in files}
        return {locator: one for locator, one in found.items() if one is not None}

    if worst:
        yield "<h2>Kept events, the worst agreement first</h2>"
    for video, duration, event in worst:
        shown = [Event(event.start, event.end, _or_nan(event.confidence), None, event.text)]
        said = _locations(locations(video, event.id))
        yield _figure(root / video, video, event, duration, [*shown, *said], f"by {event.locator}")
    if lost:
        yield "<h2>Dropped events, the worst agreement first</h2>"
    for video, duration, event in lost:
        said = _locations(locations(video, event.id) or event.candidates)
        yield _figure(root / video, video, event, duration, said, event.reason)


def _locations(found: dict[str, Any]) -> list[Event]:
    return [
        Event(one.start, one.end, _or_nan(one.confidence), None, f"by {name}")
        for name, one in found.items()
    ]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _figure(
    path: Path,
    video: str,
    event: SelectedEvent | Dropped,
    duration: float,
    shown: Sequence[Event],
    said: str,
) -> str:
    numbers = [
        f"{name} {value:.2f}" for name in SCORES if (value := getattr(event, name)) is not None
    ]
    words = " · ".join([said, *numbers])
    lines = [
        f"<figure><figcaption><b>{html.escape(video)}</b><br>{html.escape(event.text)}<br>"
        f"{html.escape(words)}</figcaption>"
    ]
    try:
        lines.append(_frames(path, shown[0]))
    except VideoError as error:
        lines.append(note(f"No frames: {error}"))
    if duration > 0:
        lines.append(timeline_svg(shown, duration))
    return "\n".join([*lines, "</figure>"])


def _frames(path: Path, event: Event) -> str:
    """A row of frames from all over the video and from an event; the latter have a border."""
    pictures = []
    with open_video(path) as reader:
        steps = (np.arange(_FRAMES) + 0.5) / _FRAMES
        moments = [*reader.duration * steps, *np.linspace(event.start, event.end, _INSIDE)]
        indices = np.searchsorted(reader.timestamps, np.sort(moments) + 1e-6, side="right") - 1
        indices = np.unique(indices.clip(0))
        times = np.asarray(reader.timestamps)[indices]
        for frame, time in zip(reader.frames(indices), times, strict=True):
            picture = Image.fromarray(frame)
            picture.thumbnail((10 * _HEIGHT, _HEIGHT))
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=80)
            content = base64.b64encode(buffer.getvalue()).decode()
            kind = ' class="inside"' if event.start <= time <= event.end else ""
            pictures.append(
                f'<img{kind} src="data:image/jpeg;base64,{content}" alt="{time:.1f} s" '
                f'title="{time:.1f} s">'
            )
    return f'<div class="frames">{"".join(pictures)}</div>'
