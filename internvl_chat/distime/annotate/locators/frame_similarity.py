"""Locations without training: where frames are most similar to the words, by a dual encoder.

The rule is ours: `distime.annotate.curves.best_run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from distime.annotate.annotator import Clip
from distime.annotate.curves import best_run
from distime.annotate.locator import Locator, rounded
from distime.annotate.records import Located
from distime.annotate.with_encoder import WithEncoder

if TYPE_CHECKING:
    from distime.processing.sampling import VideoSample


class FrameSimilarity(WithEncoder, Locator):
    """Takes the run of frames that stands out most."""

    kind: ClassVar[str] = "clip"
    flag: ClassVar[str] = "--locator clip:{target}"

    def answer(self, clip: Clip, loaded: VideoSample) -> tuple[Located, Sequence[str]]:
        """See `Annotator.answer`."""
        curves, notes = self.curves(clip, loaded)
        step = loaded.duration / len(loaded.frames)
        found = {}
        for event, curve in curves:
            first, end, contrast = best_run(curve)
            location = rounded(first * step, end * step, contrast, loaded.duration)
            if location is not None:
                found[event.id] = location
        return Located(clip.video, found), notes
