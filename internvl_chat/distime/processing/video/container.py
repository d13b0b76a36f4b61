"""Opening video files with FFmpeg (PyAV), decoding what is in them, and hearing its complaints."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import av.logging
from av.container.core import Flags

from distime.processing.video.reader import VideoError


class Complaint(NamedTuple):
    """An error that FFmpeg logged.

    Attributes:
        source: the name of what complained, a container format or a decoder.
        text: what it said.
    """

    source: str
    text: str


_listeners = 0
_listening = threading.Lock()


@contextmanager
def complaints() -> Iterator[list[Complaint]]:
    """Collect the errors that FFmpeg logs in this thread; the list is full after the block.

    What a decoder conceals is told nowhere else. FFmpeg's log has one level for the whole process:
    it is raised while anybody listens, and then put back.
    """
    global _listeners
    found: list[Complaint] = []
    with _listening:
        if _listeners == 0:
            _restore[:] = [av.logging.get_level(), av.logging.get_skip_repeated()]
            av.logging.set_level(max(_restore[0] or 0, av.logging.ERROR))
            # Repeated lines are held back until another one comes, from whichever thread.
            av.logging.set_skip_repeated(False)
        _listeners += 1
    try:
        with av.logging.Capture() as lines:
            yield found
    finally:
        found += [
            Complaint(name, text.strip())
            for level, name, text in lines
            if level <= av.logging.ERROR
        ]
        with _listening:
            _listeners -= 1
            if _listeners == 0:
                av.logging.set_level(_restore[0])
                av.logging.set_skip_repeated(_restore[1])


_restore: list = []


def open_container(
    path: Path, number: int | None = None
) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    """Open a file with PyAV and find its video stream, or take the one of that number.

    Raises VideoError where there is none that can be decoded.
    """
    # The prefix keeps FFmpeg from taking a name with a colon for a protocol.
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: no video file that FFmpeg can read ({reason(error)}); it may be cut "
            "short or of another type: download or convert it again"
        ) from error
    # PyAV has FFmpeg make up the stamps that a file lacks, in decoding order: a wrong one.
    container.flags = int(container.flags) & ~int(Flags.gen_pts.value)
    try:
        stream = _choose_stream(path, container) if number is None else container.streams[number]
    except BaseException:
        container.close()
        raise
    # More threads gain nothing measurable, data loaders bring processes of their own, and errors
    # of other threads would not be heard.
    stream.codec_context.thread_count = 1
    return container, stream


def _choose_stream(
    path: Path, container: av.container.InputContainer
) -> av.video.stream.VideoStream:
    """Find the video among a file's streams; a cover or thumbnail is a video by name only."""
    streams = [stream for stream in container.streams.video if not _is_picture(stream)]
    if not len(container.streams):  # cut off within the description of its streams, say
        raise VideoError(f"{path}: no stream in this file: it is cut short; download it again")
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise VideoError(
            f"{path}: no video stream in this file (only {', '.join(kinds)}); use a file with "
            "pictures"
        )
    if all(stream.codec_context is None for stream in streams):
        raise VideoError(f"{path}: no decoder for its video stream; convert it to h264")
    streams = [stream for stream in streams if stream.codec_context is not None]
    best = container.streams.best("video")
    best = best if best in streams else streams[0]
    if len(streams) == 1:
        return best
    # FFmpeg's choice goes by flags first, and a single picture may have the better ones.
    counts = _count_packets(path, [stream.index for stream in streams])
    if counts[best.index] > 1:
        return best
    return max(streams, key=lambda stream: counts[stream.index])


def _is_picture(stream: av.video.stream.VideoStream) -> bool:
    kinds = type(stream.disposition)
    pictures = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return bool(stream.disposition & pictures)


def _count_packets(path: Path, numbers: list[int]) -> Counter[int]:
    counts: Counter[int] = Counter()
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        try:
            for packet in demuxed(container, [container.streams[number] for number in numbers]):
                counts[packet.stream.index] += packet.size > 0
        except av.error.FFmpegError:
            pass  # a damaged file: what was counted must do
    return counts


def reason(error: Exception) -> str:
    """Say in few words what FFmpeg found wrong."""
    return getattr(error, "strerror", None) or str(error)


def decoded(
    packets: Iterable[av.Packet], report: Callable[[av.Packet, str], None]
) -> Iterator[av.VideoFrame]:
    """Decode packets, going on after damaged ones, which are reported with what is wrong.

    A picture is decoded when its packet comes, though it may be shown later: what the decoder
    complains of is that packet.
    """
    for packet in packets:
        if packet.size == 0 and packet.dts is not None:
            continue  # a frame without data; the decoder would take it for the end
        frames: list[av.VideoFrame] = []
        problem = "the container marks it as damaged" if packet.is_corrupt else ""
        with complaints() as heard:
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                problem = reason(error)
        if heard:
            problem = problem or heard[0].text
        if problem:
            report(packet, problem)
        yield from frames


def demuxed(
    container: av.container.InputContainer, *streams: av.stream.Stream | list[av.stream.Stream]
) -> Iterator[av.Packet]:
    """Yield the packets of some streams, or of all, as `container.demux` does.

    A damaged file can show streams that it did not begin with; PyAV stumbles over their packets,
    which belong to nobody.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue
