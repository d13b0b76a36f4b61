"""Captions from a file that the user has.

One line per video or per caption, with times where they are known:

    {"video": "a.mp4", "captions": ["A man opens a door.", {"text": "...", "start": 1, "end": 4}]}
    {"video": "a.mp4", "text": "A man opens a door."}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Clip, UnusableError
from distime.annotate.caption_texts import KEYS
from distime.annotate.captioner import Captioner
from distime.annotate.lines_by_video import LinesByVideo, ToldByFile, confidence_of, times_of
from distime.annotate.locator import rounded
from distime.annotate.records import Caption, Captioned, Location
from distime.data.problems import AnnotationError, show

if TYPE_CHECKING:
    from distime.annotate.annotation_settings import AnnotationSettings

LISTS = ("captions", "events")
"""Under which of them a line holds several captions."""


class CaptionsFile(ToldByFile, Captioner):
    """Takes what the file says; a video that it does not name is lost to it."""

    kind: ClassVar[str] = "file"
    target_form: ClassVar[str] = "CAPTIONS.jsonl"

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        self.lines = LinesByVideo(f"--captioner file:{target}", Path(target), read_line)

    def load(self, clip: Clip) -> float:
        """Read the length of the video."""
        from distime.annotate.frames import duration_of

        return duration_of(clip.path)

    def answer(self, clip: Clip, loaded: float) -> tuple[Captioned, Sequence[str]]:
        """See `Annotator.answer`."""
        captions, notes = [], []
        for place, said in self.lines.of(clip.video):
            for caption in said:
                if caption.location is not None:
                    start, end = caption.location.start, caption.location.end
                    inside = rounded(start, end, caption.location.confidence, loaded)
                    if inside is None or end > loaded + 0.01:
                        notes.append(
                            f"{place}: interval [{start}, {end}] leaves the video of {loaded} s"
                        )
                    caption = Caption(caption.text, inside)
                captions.append(caption)
        if not captions:
            raise UnusableError(f"{self.target} has no caption of {clip.video}: add a line")
        return Captioned(clip.video, loaded, tuple(captions)), notes


def read_line(values: dict[str, Any]) -> list[Caption]:
    """Return the captions of a line.

    Raises:
        AnnotationError: it holds none, or an interval is wrong; names no line.
    """
    named = [key for key in LISTS if key in values]
    several = values[named[0]] if named else [values]
    if not isinstance(several, list):
        raise AnnotationError(f'"{named[0]}" is {show(several)}: give a list of captions')
    return [_caption(one) for one in several]


def _caption(value: Any) -> Caption:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise AnnotationError(f"a caption is {show(value)}: give text")
    text = next((value[key] for key in KEYS if key in value), None)
    if not isinstance(text, str) or not text.strip():
        raise AnnotationError(f'"text" is {show(text)}: give the words of a caption')
    location = None
    if "start" in value or "end" in value:
        location = Location(*times_of(value), confidence_of(value))
    return Caption(" ".join(text.split()), location)
