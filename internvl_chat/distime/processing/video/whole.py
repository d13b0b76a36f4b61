"""Whether all of a file is there: containers say how long they are, and how long they play.

A download that stopped still plays: as a shorter video, if nobody looks.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

import av

from distime.processing.video.container import demuxed

_HEAD = 1 << 16  # bytes of a file's beginning that are looked at
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def declared_size(path: Path, format_name: str) -> int | None:
    """Return how many bytes a file should have by its own account; None where it does not say.

    Args:
        path: of the file.
        format_name: as FFmpeg names its container.
    """
    first = format_name.split(",")[0]
    if first == "mpegts":
        return _packets_of_188(path.stat().st_size)
    read = {"mov": _boxes, "matroska": _segment, "avi": _riff, "asf": _asf, "flv": _flv}.get(first)
    if read is None:
        return None
    with path.open("rb") as file:
        try:
            return read(file)
        except struct.error:  # the file ends inside a header
            return file.seek(0, 2) + 1


def _packets_of_188(size: int) -> int | None:
    """A transport stream is packets of 188 bytes; some recorders add 4 or 16 to each."""
    if any(size % length == 0 for length in (188, 192, 204)):
        return size
    return size // 188 * 188 + 188


def _boxes(file: BinaryIO) -> int:
    """The end of the last box of an mp4 or mov file."""
    place, total = 0, file.seek(0, 2)
    while place < total:
        file.seek(place)
        size, _ = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        if size < 8:  # 0: to the end of the file, whatever that is
            return total
        place += size
    return place


def _segment(file: BinaryIO) -> int | None:
    """The end of the segment of an mkv or webm file; None for a live recording."""
    place = 0
    for element in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # the EBML header, the segment
        file.seek(place)
        head = file.read(12)
        if len(head) < 12:
            raise struct.error
        if head[:4] != element or not head[4]:
            return None
        length = 9 - head[4].bit_length()
        size = int.from_bytes(head[4 : 4 + length], "big") & ((1 << 7 * length) - 1)
        if size == (1 << 7 * length) - 1:
            return None
        place += 4 + length + size
    return place


def _riff(file: BinaryIO) -> int | None:
    """The end of the last RIFF chunk of an avi file; long files have several."""
    place, total = 0, file.seek(0, 2)
    while place + 12 <= total:
        file.seek(place)
        name, size, _ = struct.unpack("<4sI4s", file.read(12))
        if name != b"RIFF":
            return total
        if size == 0 or size >= 1 << 32 - 1:  # a recording that was never finished
            return None
        place += 8 + size + size % 2
    return place


def _asf(file: BinaryIO) -> int | None:
    """The size in the file properties of a wmv or asf file; None for a broadcast."""
    head = file.read(_HEAD)
    place = head.find(_ASF_FILE_PROPERTIES)
    if place < 0:
        return None
    size, flags = struct.unpack_from("<Q40xI", head, place + 40)
    return None if flags & 1 or not size else size


def _flv(file: BinaryIO) -> int | None:
    """The size in the metadata of a flv file."""
    head = file.read(_HEAD)
    place = head.find(b"\x00\x08filesize\x00")
    if place < 0:
        return None
    (size,) = struct.unpack_from(">d", head, place + 11)
    return int(size) or None


def promised_end(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> tuple[float, bool] | None:
    """Return when the pictures should end by the header, and whether it speaks of them alone.

    Seconds on the container's clock. None where the header does not say.
    """
    first = container.format.name.split(",")[0]
    if first == "mov" and stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base), True
    if first == "asf":  # FFmpeg does not say it of a cut file
        with path.open("rb") as file:
            head = file.read(_HEAD)
        place = head.find(_ASF_FILE_PROPERTIES)
        if place < 0 or len(head) < place + 92:
            return None
        lasting, preroll, flags = struct.unpack_from("<Q8xQI", head, place + 64)
        return None if flags & 1 else (lasting / 1e7 - preroll / 1e3, False)
    if first == "avi":
        # FFmpeg shortens its duration to what is there, but not the number of ticks.
        return (float(stream.frames * stream.time_base), True) if stream.frames else None
    if first not in ("matroska", "flv"):
        return None
    for key, value in stream.metadata.items():
        parts = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value)
        if key.upper().startswith("DURATION") and parts:
            hours, minutes, seconds = map(float, parts.groups())
            return 3600 * hours + 60 * minutes + seconds, True
    return (container.duration / av.time_base, False) if container.duration else None


def other_streams_end(path: Path, number: int) -> float:
    """Return when the last packet of the other streams ends, in seconds; -inf without any."""
    ends = [float("-inf")]
    with av.open(f"file:{path}", metadata_errors="replace") as container:
        try:
            for packet in demuxed(container):
                if packet.stream.index != number and packet.size and packet.pts is not None:
                    ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except av.error.FFmpegError:
            pass  # a damaged file: what was read must do
    return max(ends)
