"""Stage 1: what happens. Each captioner looks at every video; what they say is merged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distime.annotate.annotator import Annotator, Clip
from distime.annotate.duplicates import merge
from distime.annotate.passes import NothingLeftError, Pass, by_the_first, expect_some, forget_others
from distime.annotate.records import Captioned, Described, RecordFile, write_records

if TYPE_CHECKING:
    from distime.annotate.run import AnnotationRun


def run(run: AnnotationRun) -> tuple[list[str], int]:
    """Write `events.jsonl`; return the summary and the most videos that failed."""
    tallies = [_pass(run, captioner).run() for captioner in run.captioners]
    expect_some("events", tallies)
    said = by_the_first(lambda: _merge(run))
    return [*map(str, tallies), said], max(one.failed for one in tallies)


def _pass(run: AnnotationRun, captioner: Annotator) -> Pass:
    return Pass(
        captioner,
        run.folder,
        run.folder.captions(captioner.name),
        run.videos,
        [run.key(video) for video in run.videos],
        lambda number: Clip(number, run.videos[number], run.path(run.videos[number])),
        run.of(captioner),
    )


def _merge(run: AnnotationRun) -> str:
    forget_others(run.folder, "events", [one.name for one in run.captioners])
    files = {
        one.name: RecordFile(run.folder.captions(one.name), Captioned) for one in run.captioners
    }
    captions = events = 0

    def described() -> Iterator[Described]:
        nonlocal captions, events
        for video in run.videos:
            found = {name: file.of_video(video) for name, file in files.items()}
            found = {name: one for name, one in found.items() if one is not None}
            if not found:
                continue
            said = [(name, caption) for name, one in found.items() for caption in one.captions]
            merged = merge(video, said, run.settings.same_words)
            captions, events = captions + len(said), events + len(merged)
            yield Described(video, next(iter(found.values())).duration, merged)

    videos = write_records(run.folder.events, described())
    if not events:
        raise NothingLeftError(f"--captioner: no captioner has told of an event in {videos} videos")
    return f"{events} events in {videos} videos ({captions - events} captions were duplicates)"
