"""Read frames and their true times from video files, animations, folders and still images.

:func:`open_video` gives a :class:`VideoReader`: the times of all frames, and any of them decoded
exactly, upright, in presentation order. Everything wrong with a file is a :class:`VideoError` that
names it. ``docs/VIDEO_DECODING.md`` has measurements and the treatment of odd files.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from distime.processing.video.encoding import encode_video
from distime.processing.video.pictures import (
    ANIMATION_SUFFIXES,
    FRAME_FOLDER_FPS,
    IMAGE_SUFFIXES,
    AnimationReader,
    FolderReader,
    ImageReader,
    is_animated,
)
from distime.processing.video.reader import VideoError, VideoReader
from distime.processing.video.video_file import FileReader

__all__ = ["VideoError", "VideoReader", "encode_video", "looks_like_video", "open_video"]

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def open_video(
    path: str | os.PathLike[str],
    *,
    folder_fps: float = FRAME_FOLDER_FPS,
    gif_fps: float | None = None,
) -> VideoReader:
    """Open a video file, an animation, a still image, or a folder of frames from ``00001.jpg`` on.

    `folder_fps` is the rate of folders. `gif_fps` is that of gifs, for protocols that do not ask
    the file; see `AnimationReader`.

    Raises VideoError, which names the file, for anything that cannot be read.
    """
    if not isinstance(path, str | os.PathLike):
        raise VideoError(
            f"a {type(path).__name__} is no video: give the path of a file or folder, or frames as "
            "a VideoSample"
        )
    path = Path(os.fsdecode(path))
    try:
        kind = path.stat().st_mode
        readable = os.access(path, os.R_OK)
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise VideoError(_not_there(os.fspath(path), error)) from error
    if not readable:
        raise VideoError(f"{path}: no permission to read it; change its mode or its owner")
    if stat.S_ISDIR(kind):
        return FolderReader(path, folder_fps)
    if not stat.S_ISREG(kind):
        raise VideoError(f"{path}: neither a file nor a folder; give the path of a video")
    if size == 0:
        raise VideoError(f"{path}: the file is empty; download it again")
    suffix = path.suffix.lower()
    if suffix == ".gif" and gif_fps:
        return AnimationReader(path, gif_fps)
    if suffix in ANIMATION_SUFFIXES and is_animated(path):
        return AnimationReader(path)
    if suffix in IMAGE_SUFFIXES | ANIMATION_SUFFIXES:
        return ImageReader(path)
    return FileReader(path)


def looks_like_video(path: Path) -> bool:
    """Tell whether a file begins as mp4, mov, webm, mkv, avi or gif do.

    FFmpeg goes by what a file says, not by its name, and a playlist (HLS, concat) may say to read
    other files of the machine. Such files never begin like these.
    """
    with path.open("rb") as file:
        head = file.read(12)
    return (
        head[4:8] in _MP4_BOXES
        or head.startswith((b"\x1a\x45\xdf\xa3", b"GIF8"))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )


def _not_there(path: str, error: OSError | ValueError) -> str:
    """Say why there is no file of that name, in one line however long the name is."""
    shown = path if len(path) <= 200 else f"{path[:60]}... ({len(path)} characters)"
    # Path takes one slash out of "https://".
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        return f"{shown}: an address; videos are read from files: download it, give the file's path"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{shown}: no such video; check the path and the root folder"
    if isinstance(error, PermissionError):
        return f"{shown}: no permission to read it; change the mode of the folders above it"
    reason = getattr(error, "strerror", None) or error
    return f"{shown}: no path of a video ({reason}); give that of a file or folder"
