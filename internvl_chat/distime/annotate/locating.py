"""Stage 2: when. Each locator looks for the events of every video."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distime.annotate.annotator import Annotator, Clip
from distime.annotate.passes import Pass, expect_some
from distime.annotate.records import Described, RecordFile

if TYPE_CHECKING:
    from distime.annotate.run import AnnotationRun


def run(run: AnnotationRun) -> tuple[list[str], int]:
    """Write `locations/NAME.jsonl`; return the summary and the most videos that failed."""
    events = RecordFile(run.folder.events, Described)
    for locator in run.locators:
        locator.check(events)
    tallies = [_pass(run, locator, events).run() for locator in run.locators]
    expect_some("locations", tallies)
    return list(map(str, tallies)), max(one.failed for one in tallies)


def _pass(run: AnnotationRun, locator: Annotator, events: RecordFile[Described]) -> Pass:
    def clip_of(number: int, described: Described) -> Clip:
        return Clip(number, described.video, run.path(described.video), described)

    lines, videos, keys = [], [], []
    for line, described in enumerate(events):
        if described.events:
            clip = clip_of(len(lines), described)
            lines.append(line)
            videos.append(clip.video)
            keys.append(run.key(clip.video, locator.asked(clip)))

    def clip(number: int) -> Clip:
        return clip_of(number, events[lines[number]])

    out = run.folder.locations(locator.name)
    return Pass(locator, run.folder, out, videos, keys, clip, run.of(locator))
