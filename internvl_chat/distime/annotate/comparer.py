"""How well the frames of each location fit the words, against the rest of the video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Clip
from distime.annotate.curves import stands_out
from distime.annotate.records import Compared
from distime.annotate.with_encoder import WithEncoder

if TYPE_CHECKING:
    from distime.processing.sampling import VideoSample


class Comparer(WithEncoder):
    """Answers a clip, whose events are located, with a `Compared`."""

    stage: ClassVar[str] = "similarity"
    record: ClassVar[type[Compared]] = Compared
    flag: ClassVar[str] = "--similarity {target}"

    def asked(self, clip: Clip) -> list[Any]:
        """Also where each locator finds the events; see `Annotator.asked`."""
        located = [[name, one.to_dict()] for name, one in clip.located.items()]
        return super().asked(clip) + located

    def answer(self, clip: Clip, loaded: VideoSample) -> tuple[Compared, Sequence[str]]:
        """See `Annotator.answer`."""
        curves, notes = self.curves(clip, loaded)
        found: dict[str, dict[str, float]] = {}
        for event, curve in curves:
            for locator, located in clip.located.items():
                if (location := located.locations.get(event.id)) is not None:
                    start, end = (t / loaded.duration for t in (location.start, location.end))
                    value = round(stands_out(curve, start, end), 4)
                    found.setdefault(event.id, {})[locator] = value
        return Compared(clip.video, found), notes
