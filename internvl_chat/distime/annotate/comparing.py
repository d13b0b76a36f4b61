"""Stage 3, where an encoder is given: how well the frames of each location fit the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distime.annotate.annotator import Clip
from distime.annotate.passes import Pass, expect_some
from distime.annotate.records import Described, Located, RecordFile

if TYPE_CHECKING:
    from distime.annotate.run import AnnotationRun


def run(run: AnnotationRun) -> tuple[list[str], int]:
    """Write `similarity.jsonl`; return the summary and how many videos failed."""
    if run.comparer is None:
        return ["not asked for (--similarity)"], 0
    events = RecordFile(run.folder.events, Described)
    files = {name: RecordFile(run.folder.locations(name), Located) for name in run.locator_names}

    def clip_of(number: int, described: Described) -> Clip:
        video = described.video
        return Clip(number, video, run.path(video), described, _located(files, video))

    lines, videos, keys = [], [], []
    for line, described in enumerate(events):
        clip = clip_of(len(lines), described)
        if described.events and clip.located:
            lines.append(line)
            videos.append(clip.video)
            keys.append(run.key(clip.video, run.comparer.asked(clip)))

    def clip(number: int) -> Clip:
        return clip_of(number, events[lines[number]])

    out = run.folder.similarity
    tally = Pass(run.comparer, run.folder, out, videos, keys, clip).run()
    expect_some("similarity", [tally])
    return [str(tally)], tally.failed


def _located(files: dict[str, RecordFile[Located]], video: str) -> dict[str, Located]:
    found = {name: file.of_video(video) for name, file in files.items()}
    return {name: one for name, one in found.items() if one is not None and one.locations}
