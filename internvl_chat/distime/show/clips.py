"""Events as files that other programs read: video clips and subtitles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from distime.processing.answers import Event
from distime.processing.video import VideoReader, encode_video, open_video

_AT_ONCE = 32  # frames held in memory
_MOST_FPS = 60.0  # of a clip from a video of varying rate


def write_clip(
    path: str | os.PathLike,
    video: str | os.PathLike,
    start: float,
    end: float,
) -> Path:
    """Cut a part of a video into an h264 mp4 file of its own, without sound.

    The clip has what is on the screen between `start` and `end`, re-encoded, so that it begins
    exactly there and not at a keyframe; at least one frame.

    Args:
        path: of the clip; it appears only when it is complete.
        video: path of a video, gif or folder of frames.
        start: seconds on the clock of players, as in the events of `distime.api`.
        end: seconds, not before `start`.

    Returns:
        the path of the clip.

    Raises:
        VideoError: the video cannot be read.
        ValueError: the end lies before the start.
    """
    if end < start:
        raise ValueError(f"a clip from {start:.2f} s to {end:.2f} s ends before it starts")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_video(video) as reader:
        # Each moment has the frame of its time, at the rate that most frames have.
        fps = reader.fps
        if not reader.constant_rate and reader.num_frames > 1:
            fps = min(max(fps, 1 / float(np.median(np.diff(reader.timestamps)))), _MOST_FPS)
        moments = np.arange(start, max(end, start + 0.5 / fps), 1 / fps) - reader.start
        indices = np.searchsorted(reader.timestamps, moments + 1e-6, side="right") - 1
        indices = np.clip(indices, 0, reader.num_frames - 1)
        encode_video(path, _even_frames(reader, indices), fps)
    return path


def _even_frames(reader: VideoReader, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Decode frames few at a time; h264 wants an even width and height, so a line may be lost."""
    for begin in range(0, len(indices), _AT_ONCE):
        for frame in reader.frames(indices[begin : begin + _AT_ONCE]):
            height, width = (max(side // 2 * 2, 2) for side in frame.shape[:2])
            yield frame[:height, :width]


def write_srt(path: str | os.PathLike, events: Iterable[Event]) -> Path:
    """Write events as SubRip subtitles, in the order of their starts.

    Args:
        path: of the file.
        events: with times in seconds; the text is what the subtitle says.

    Returns:
        the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(srt(events), encoding="utf-8")
    return path


def srt(events: Iterable[Event]) -> str:
    """Events as SubRip subtitles, in the order of their starts; see `write_srt`."""
    blocks = []
    for number, event in enumerate(sorted(events, key=lambda e: (e.start, e.end)), start=1):
        # An empty line would end the subtitle, and an arrow could begin a new one.
        words = " ".join(event.text.replace("-->", "->").split()) or f"event {number}"
        blocks.append(f"{number}\n{_clock(event.start)} --> {_clock(event.end)}\n{words}\n")
    return "\n".join(blocks)


def _clock(seconds: float) -> str:
    """Seconds as SubRip writes them: hours:minutes:seconds,milliseconds."""
    milliseconds = round(max(seconds, 0) * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"
