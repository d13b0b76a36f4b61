"""A copy of a video that browsers play, for those that they do not (avi, gif, mkv, hevc, ...)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from distime.processing.video import VideoReader, encode_video, open_video

_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm")
_CODECS = ("h264", "vp8", "vp9", "av1")
_PIXELS = ("yuv420p", "yuvj420p")
_FPS, _MOST_FRAMES, _SIDE = 12, 6000, 640
_AT_ONCE = 32  # frames held in memory


def plays_in_browsers(path: Path) -> bool:
    """Tell whether the usual browsers play a video file; False where it cannot be opened."""
    if path.suffix.lower() not in _SUFFIXES:
        return False
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            codec = container.streams.video[0].codec_context
            return codec.name in _CODECS and codec.pix_fmt in _PIXELS
    except (av.error.FFmpegError, OSError, IndexError):
        return False


def write_preview(path: Path, out: Path) -> None:
    """Write a video as a small mp4 file without sound, on the clock that players show.

    It has at most 12 frames a second and 6,000 in all, so that an hour is ready in a minute or so.

    Args:
        path: of a video that may be read.
        out: of the mp4 file; it appears only when it is complete.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(path) as reader:
        end = reader.start + reader.duration
        fps = min(_FPS, reader.fps, _MOST_FRAMES / end)
        fps = max(round(fps, 2), 0.01)
        moments = np.arange(max(round(end * fps), 1)) / fps - reader.start
        indices = np.searchsorted(reader.timestamps, moments + 1e-6, side="right") - 1
        encode_video(out, _small_frames(reader, indices.clip(0)), fps)


def _small_frames(reader: VideoReader, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Decode frames few at a time, no side longer than 640 pixels and both even."""
    for begin in range(0, len(indices), _AT_ONCE):
        for frame in reader.frames(indices[begin : begin + _AT_ONCE]):
            scale = min(1, _SIDE / max(frame.shape))
            height, width = (max(round(side * scale / 2) * 2, 2) for side in frame.shape[:2])
            yield np.asarray(Image.fromarray(frame).resize((width, height)))
