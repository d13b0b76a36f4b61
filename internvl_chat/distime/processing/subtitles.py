"""Subtitles between the frames of a video.

A subtitle that some frame falls into stands on a line of its own, behind the last frame before its
middle::

    <FRAME_TIME_REF>: <img>...</img>
    what is being said then
    <FRAME_TIME_REF>: <img>...</img>
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from distime.processing.processor import DisTimeProcessor
from distime.processing.prompt import ChatTemplate, Media
from distime.processing.sampling import VideoSample

SHORTEST = 1.0
"""Seconds that a subtitle lasts at least."""


@dataclass(frozen=True)
class Subtitle:
    """What is said from `start` to `end` (seconds of the video)."""

    start: float
    end: float
    text: str


def read_subtitles(entries: Iterable[dict[str, Any]], offset: float = 0.0) -> list[Subtitle]:
    """Read a subtitle file's entries.

    Args:
        entries: `{"start": "00:00:01.5", "end": ..., "line": ...}`, or
            `{"timestamp": [1.5, 2.5], "text": ...}` where the end may be null.
        offset: time of the subtitles at which the video begins, seconds.

    Returns:
        the subtitles in order of their middle.

    Raises:
        KeyError, TypeError, ValueError: an entry has neither form.
    """
    found = []
    for entry in entries:
        if "timestamp" in entry:
            start, end = entry["timestamp"]
            text = entry["text"]
        else:
            start, end, text = _seconds(entry["start"]), _seconds(entry["end"]), entry["line"]
        end = start if end is None else end
        missing = max(0.0, SHORTEST - (end - start)) / 2
        found.append(Subtitle(start - offset - missing, end - offset + missing, text.strip()))
    return sorted(found, key=lambda subtitle: subtitle.start + subtitle.end)


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def between_frames(
    subtitles: Sequence[Subtitle], times: Sequence[float]
) -> tuple[tuple[str, ...], ...]:
    """Lines before the first frame and behind each, `len(times) + 1` groups; times in seconds."""
    groups: list[list[str]] = [[] for _ in range(len(times) + 1)]
    for subtitle in subtitles:
        if subtitle.text and any(subtitle.start < time < subtitle.end for time in times):
            middle = (subtitle.start + subtitle.end) / 2
            groups[bisect.bisect_right(times, middle)].append(subtitle.text)
    return tuple(map(tuple, groups))


@dataclass(frozen=True)
class SubtitledSample(VideoSample):
    """A sampled video with lines of text: see `between_frames`."""

    lines: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class SubtitledMedia(Media):
    """What the prompt needs to know of a `SubtitledSample`."""

    lines: tuple[tuple[str, ...], ...] = ()

    def place(
        self,
        text: str,
        join: str = "\n",
        template: ChatTemplate = ChatTemplate(),  # noqa: B008 - it is frozen
    ) -> str:
        """Return the question behind the frames and the lines between them."""
        slot = template.slot_block(self.tokens_per_image)
        before, *behind = self.lines
        shown = [*before, *(part for group in behind for part in (slot, *group))]
        return "\n".join(shown) + template.after_video + join + text


class SubtitledProcessor(DisTimeProcessor):
    """A processor that shows what is said between the frames.

    Args:
        processor: whose tokenizer and settings are used.
        subtitles_of: returns the subtitles of the video at a path.
    """

    def __init__(
        self, processor: DisTimeProcessor, subtitles_of: Callable[[Path], Sequence[Subtitle]]
    ):
        super().__init__(processor.tokenizer, processor.settings)
        self._subtitles_of = subtitles_of

    def load_video(self, video: Any, *args: Any, **kwargs: Any) -> VideoSample:
        """Decode a video file and read its subtitles."""
        if isinstance(video, VideoSample):
            return video
        sample = super().load_video(video, *args, **kwargs)
        times = self.backbone.slot_times(sample.times)
        lines = between_frames(self._subtitles_of(Path(video)), times)
        return SubtitledSample(*(getattr(sample, f.name) for f in fields(sample)), lines)

    def video_media(self, sample: VideoSample) -> Media:
        """See `DisTimeProcessor.video_media`."""
        media = super().video_media(sample)
        if not isinstance(sample, SubtitledSample):
            return media
        return SubtitledMedia(
            media.tokens_per_image, media.num_frames, num_extra=media.num_extra, lines=sample.lines
        )
