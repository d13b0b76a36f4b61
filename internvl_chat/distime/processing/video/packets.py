"""The packet index: which frames a file has and when they are shown, nothing decoded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from distime.processing.video.container import decoded, open_container
from distime.processing.video.reader import VideoError

logger = logging.getLogger(__name__)


class Packet(NamedTuple):
    """What is kept of a packet; stamps in the stream's ticks."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    hidden: bool  # cut away by an edit list: decoded, not shown
    cut: bool  # not all of its data is there


class Keyframe(NamedTuple):
    """A packet that can be decoded without those before it."""

    pts: int
    dts: int | None
    position: int  # in decoding order


@dataclass(frozen=True)
class Index:
    """What reading a file's packets tells, nothing decoded.

    `stamps` are the shown frames' presentation stamps in ascending order (plain counts where the
    file has none: then `counted`), of those frames whose data is there; `seconds` are the times of
    all frames, also of those cut off.
    """

    stamps: list[int]
    seconds: np.ndarray
    fps: float
    duration: float
    constant_rate: bool
    keyframes: list[Keyframe]  # ascending in pts
    position: dict[int, int]  # stamp -> place in decoding order
    counted: bool


def read_index(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Index:
    """Read all packets of a stream and say which frames there are, and when."""
    packets: list[Packet] = []
    try:
        packets.extend(
            Packet(
                packet.pts,
                packet.dts,
                packet.duration or 0,
                packet.is_keyframe,
                packet.is_discard,
                packet.is_corrupt,
            )
            for packet in container.demux(stream)
            if packet.size
        )
    except av.error.FFmpegError as error:
        logger.warning("%s: reading stopped after %d packets: %s", path, len(packets), error)
    if packets and packets[-1].cut:
        packets.pop()  # the file ends inside it
    if not packets:
        raise VideoError(f"{path}: no readable picture in this file; download it again")

    shown = [packet for packet in packets if not packet.hidden]
    stamps = sorted(packet.pts for packet in shown if packet.pts is not None)
    counted = False
    # In VP8 some packets are never shown; without stamps, or with two the same, packets do not
    # tell the frames apart. Then decoding once does.
    if (
        len(stamps) < len(shown)
        or len(set(stamps)) < len(stamps)
        or stream.codec_context.name in ("vp8", "libvpx")
    ):
        stamps, counted = _stamps_by_decoding(path)
    if not stamps:
        raise VideoError(f"{path}: no picture in this file can be decoded; download it again")

    # Stamps are counts or the packets'; only the latter have a place among the packets.
    position = {p.pts: place for place, p in enumerate(packets) if p.pts is not None}
    keyframes = sorted(
        (
            Keyframe(p.pts, p.dts, place)
            for place, p in enumerate(packets)
            if p.key and p.pts in position
        ),
        key=lambda keyframe: keyframe.pts,
    )
    # Durations in mp4 are steps between decoding stamps, so with reordered frames only that of the
    # last packet is the length of a frame on the screen: what follows the last stamp.
    last_duration = packets[-1].duration
    # mp4 lists its frames apart from their data: a list longer than the data is a cut file. (Other
    # containers list none or some.) Of the frames shown after the last decoding stamp some may be
    # cut off, so none of them counts as there.
    entries = stream.index_entries
    missing = 0
    if not counted and len(entries) > len(packets):
        # Entries without data make no packet even in a whole file.
        missing = sum(entries[i].size > 0 for i in range(len(entries))) - len(packets)
    if missing > 0:
        whole = [stamp for stamp in stamps if stamp <= packets[-1].dts]
        missing += len(stamps) - len(whole)
        stamps = whole
        logger.warning(
            "%s is cut short: %d of its %d frames are there",
            path,
            len(stamps),
            len(stamps) + missing,
        )
    fps, seconds, duration, constant_rate = _times(stream, stamps, missing, last_duration, counted)
    return Index(stamps, seconds, fps, duration, constant_rate, keyframes, position, counted)


def _stamps_by_decoding(path: Path) -> tuple[list[int], bool]:
    """Decode a whole file; return its frames' stamps, or counts (and True) where they are bad."""
    container, stream = open_container(path)
    with container:
        stamps = [frame.pts for frame in decoded(container.demux(stream), [])]
    good = None not in stamps and all(a < b for a, b in zip(stamps, stamps[1:], strict=False))
    return (stamps, False) if good else (list(range(len(stamps))), True)


def _times(
    stream: av.video.stream.VideoStream,
    stamps: list[int],
    missing: int,
    last_duration: int,
    counted: bool,
) -> tuple[float, np.ndarray, float, bool]:
    """Return (fps, seconds of every frame, duration in seconds, constant rate?).

    `missing` frames that are cut off follow those of `stamps`; their times are spread evenly.
    """
    tick = stream.time_base
    total = len(stamps) + missing
    rates = [stream.average_rate, stream.base_rate, stream.guessed_rate]
    if counted:
        # Without stamps the average is FFmpeg's own default; the guess looks into the codec too.
        rates.reverse()
    rates = [rate for rate in rates if rate and 0 < rate <= 1000]
    if counted:
        rate = float(rates[0]) if rates else 25.0
        return rate, np.arange(total) / rate, total / rate, True
    seconds = (np.array(stamps, dtype=np.int64) - stamps[0]) * float(tick)
    last = float(last_duration * tick)
    if len(stamps) == 1 and last_duration:
        rates.insert(0, 1 / last)
    for rate in map(float, rates):
        # Containers with coarse ticks (1 ms in mkv) round the times of a constant rate. A tick of
        # about a frame leaves no room for that: there, one tick off is a missing frame.
        slack = 1.01 * float(tick) if float(tick) * rate < 0.5 else 1e-6
        constant = np.abs(seconds - np.arange(len(stamps)) / rate).max() <= slack
        if constant and (last <= 0 or abs(last - 1 / rate) <= slack):
            return rate, np.arange(total) / rate, total / rate, True
    step = last
    if step <= 0:
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    duration = float(seconds[-1]) + step
    if missing:
        # The list of frames that mp4 keeps apart also says how long the whole is.
        duration = max(float((stream.duration or 0) * tick), duration)
        rest = np.linspace(seconds[-1], duration, missing + 2)[1:-1]
        seconds = np.concatenate([seconds, rest])
    return total / duration, seconds, duration, False
