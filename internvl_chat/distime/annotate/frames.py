"""The frames of a video that captioners and encoders look at: by the second, and never too many."""

from __future__ import annotations

from pathlib import Path

from distime.processing.frame_count import frame_count
from distime.processing.sampling import VideoSample, sample_reader
from distime.processing.video import VideoError, open_video


def look(path: Path, fps: float, max_frames: int) -> VideoSample:
    """Return frames at the centres of equal segments of a video.

    Args:
        path: of the video.
        fps: frames for each second.
        max_frames: most of them; those of longer videos are spread evenly.

    Raises:
        VideoError: the file cannot be read; the message names it.
    """
    with open_video(path) as reader:
        count = frame_count(reader.duration, 1, fps=fps, max_frames=max_frames)
        return sample_reader(reader, count, rule="by_time")


def duration_of(path: Path) -> float:
    """Return the length of a video in seconds, as its frames' sampler has it.

    Raises:
        VideoError: the file cannot be read, or has no length; the message names it.
    """
    with open_video(path) as reader:
        if not reader.duration > 0:
            raise VideoError(f"{path}: the video has no length; download it again")
        return round(reader.duration, 2) or reader.duration
