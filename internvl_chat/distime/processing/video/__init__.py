"""Read frames and their true times from video files, gifs, folders of frames and still images.

:func:`open_video` gives a :class:`VideoReader`: the times of all frames, and any of them decoded
exactly, upright, in presentation order. Everything wrong with a file is a :class:`VideoError` that
names it. ``docs/VIDEO_DECODING.md`` has measurements and the treatment of odd files.
"""

from __future__ import annotations

import os
from pathlib import Path

from distime.processing.video.files import FileReader
from distime.processing.video.pictures import (
    FRAME_FOLDER_FPS,
    IMAGE_SUFFIXES,
    FolderReader,
    GifReader,
    ImageReader,
)
from distime.processing.video.reader import VideoError, VideoReader
from distime.processing.video.writing import encode_video

__all__ = ["VideoError", "VideoReader", "encode_video", "open_video"]


def open_video(
    path: str | os.PathLike[str],
    *,
    folder_fps: float = FRAME_FOLDER_FPS,
) -> VideoReader:
    """Open a video file, a gif, a still image, or a folder of frames numbered from ``00001.jpg``.

    `folder_fps` is the rate of folders.

    Raises VideoError, which names the file, for anything that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return FolderReader(path, folder_fps)
    if not path.exists():
        raise VideoError(f"{path}: no such video; check the path and the root folder")
    if not path.is_file():
        raise VideoError(f"{path}: neither a file nor a folder; give the path of a video")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty; download it again")
    if path.suffix.lower() == ".gif":
        return GifReader(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(path)
    return FileReader(path)
