"""Opening video files with FFmpeg (PyAV), and decoding what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av

from distime.processing.video.reader import VideoError


def open_container(path: Path) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    """Open a file with PyAV and find its video stream."""
    # The prefix keeps FFmpeg from taking a name with a colon for a protocol.
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: no video file that FFmpeg can read ({reason(error)}); it may be cut "
            "short or of another type: download or convert it again"
        ) from error
    # A cover picture in a sound file is a video stream by name only.
    streams = [
        stream
        for stream in container.streams.video
        if not (stream.disposition & stream.disposition.__class__.attached_pic)
    ]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        container.close()
        raise VideoError(
            f"{path}: no video stream in this file (only {', '.join(kinds) or 'nothing'}); "
            "use a file with pictures"
        )
    if streams[0].codec_context is None:
        container.close()
        raise VideoError(f"{path}: no decoder for its video stream; convert it to h264")
    # More threads gain nothing measurable, and data loaders bring processes of their own.
    streams[0].codec_context.thread_count = 1
    return container, streams[0]


def reason(error: Exception) -> str:
    """Say in few words what FFmpeg found wrong."""
    return getattr(error, "strerror", None) or str(error)


def decoded(packets: Iterable[av.Packet], errors: list[str]) -> Iterator[av.VideoFrame]:
    """Decode packets, going on after damaged ones, whose errors are appended to `errors`."""
    for packet in packets:
        if packet.size == 0 and packet.dts is not None:
            continue  # a frame without data; the decoder would take it for the end
        try:
            yield from packet.decode()
        except av.error.FFmpegError as error:
            errors.append(reason(error))
