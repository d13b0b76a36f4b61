"""The packet index: which frames a file has and when they are shown, nothing decoded."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from distime.processing.video.container import (
    Complaint,
    complaints,
    decoded,
    demuxed,
    open_container,
)
from distime.processing.video.reader import VideoError
from distime.processing.video.whole import declared_size, other_streams_end, promised_end

logger = logging.getLogger(__name__)

# Headers and packets of whole files differ by a picture or two; what is more has a reason.
_SLACK = 0.5  # seconds

# How far decoders reorder pictures in practice.
_REORDERED = 4

# Pictures that are decoded to see whether a doubtful file's stamps are in order.
_LOOKED_AT = 32


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


class Cut(NamedTuple):
    """What is missing from a file that is cut short.

    Attributes:
        frames: how many; 0 where the file does not say how long the whole was.
        end: when the whole would end, in seconds from the first frame; 0 where it does not say.
    """

    frames: int
    end: float


@dataclass(frozen=True)
class Index:
    """What reading a file's packets tells, nothing decoded.

    `stamps` are the shown frames' presentation stamps in ascending order (plain counts where the
    file's are missing or wrong: then `counted`), of those frames whose data is there; `seconds` are
    the times of all frames from the first one on, also of those cut off. `start` is the time of the
    first one on the container's clock.
    """

    stamps: list[int]
    seconds: np.ndarray
    fps: float
    duration: float
    constant_rate: bool
    start: float
    keyframes: list[Keyframe]  # ascending in pts
    key_places: list[int]  # of all keyframes in decoding order
    position: dict[int, int]  # stamp -> place in decoding order
    counted: bool
    by_dts: bool  # the packets lack presentation stamps, and nothing is reordered
    warnings: list[str] = field(default_factory=list)


def read_index(
    path: Path,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    *,
    count: bool = False,
) -> Index:
    """Read all packets of a stream and say which frames there are, and when.

    With `count`, the stamps are known to be wrong.
    """
    packets, complained = _read_packets(path, container, stream)
    by_dts = not stream.codec_context.has_b_frames and all(p.pts is None for p in packets)
    if by_dts:
        packets = [packet._replace(pts=packet.dts) for packet in packets]
    if packets and packets[-1].cut:
        packets.pop()  # the file ends inside it
        complained.append(Complaint("", "the last packet is incomplete"))
    if not packets:
        raise VideoError(f"{path}: no readable picture in this file; download it again")

    shown = [packet for packet in packets if not packet.hidden]
    stamps = sorted(packet.pts for packet in shown if packet.pts is not None)
    counted = False
    # In VP8 some packets are never shown; without stamps, or with two the same, packets do not
    # tell the frames apart. Then decoding once does.
    if (
        count
        or len(stamps) < len(shown)
        or len(set(stamps)) < len(stamps)
        or stream.codec_context.name in ("vp8", "libvpx")
        or not _in_order(path, stream, packets)
    ):
        stamps = _stamps_by_decoding(path, stream.index, by_dts)
        if counted := count or not _ascending(stamps):
            stamps = list(range(len(stamps)))
    if not stamps:
        raise VideoError(f"{path}: no picture in this file can be decoded; download it again")

    # Stamps are counts or the packets'; only the latter have a place among the packets.
    position = {p.pts: place for place, p in enumerate(packets) if p.pts is not None}
    if counted:
        position = {}
    keyframes = sorted(
        (
            Keyframe(p.pts, p.dts, place)
            for place, p in enumerate(packets)
            if p.key and p.pts in position
        ),
        key=lambda keyframe: keyframe.pts,
    )
    ticks = _ticks_of_counted(packets, len(stamps)) if counted else stamps
    last = _last_duration(container, packets, ticks)
    is_mov = container.format.name.startswith("mov")
    cut = _cut_by_list(stream, packets) if is_mov and not counted else None
    if cut is None:
        tick = stream.time_base
        begin = float(ticks[0] * tick) if ticks else 0.0
        end = float((ticks[-1] + last) * tick) if ticks else len(stamps) / _rates(stream, ticks)[0]
        pictures = begin, end, len(stamps)
        cut, end = _compare_with_header(path, container, stream, pictures, complained)
        if ticks and end:
            last = round(end / tick) - ticks[-1]
    if cut and cut.frames:
        # Of the frames shown after the last decoding stamp some may be cut off, so none of them
        # counts as there. Where there are no such stamps it may be any of the last few.
        whole = len(stamps)
        if not counted and packets[-1].dts is not None:
            whole = max(sum(stamp <= packets[-1].dts for stamp in stamps), 1)
        elif stream.codec_context.has_b_frames:
            whole = max(whole - _REORDERED, 1)
        cut = cut._replace(frames=cut.frames + len(stamps) - whole)
        stamps, ticks = stamps[:whole], ticks[:whole]
    fps, seconds, duration, constant_rate = _times(stream, len(stamps), ticks, cut, last)
    index = Index(
        stamps=stamps,
        seconds=seconds,
        fps=fps,
        duration=duration,
        constant_rate=constant_rate,
        start=_start(container, stream, stream.start_time if counted else stamps[0]),
        keyframes=keyframes,
        key_places=[place for place, packet in enumerate(packets) if packet.key],
        position=position,
        counted=counted,
        by_dts=by_dts,
    )
    if cut is not None:
        index.warnings.append(_cut_words(path, index, cut))
    elif complained:
        index.warnings.append(
            f"{path} is damaged: pictures may be missing from it ({complained[0].text}); download "
            "it again"
        )
    for warning in index.warnings:
        logger.warning("%s", warning)
    return index


def _read_packets(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> tuple[list[Packet], list[Complaint]]:
    """Return a stream's packets, and what the container complained of meanwhile."""
    packets: list[Packet] = []
    stopped: list[Complaint] = []
    listed = len(stream.index_entries)
    with complaints() as heard:
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
                for packet in demuxed(container, stream)
                if packet.size
            )
        except av.error.FFmpegError as error:
            stopped.append(Complaint("", f"reading stopped: {error}"))
    if container.format.name == "avi" and listed < len(packets):
        # Only the index of an avi file tells keyframes; where it is cut off all pass for one.
        packets[1:] = [packet._replace(key=False) for packet in packets[1:]]
    # Decoders complain of what they need not understand to find the packets.
    return packets, [one for one in heard if one.source == container.format.name] + stopped


def _in_order(path: Path, stream: av.video.stream.VideoStream, packets: list[Packet]) -> bool:
    """Whether the packets' stamps can be the order in which the decoder gives the pictures."""
    latest = None
    ascending = True
    for packet in packets:
        if latest is not None and packet.pts <= latest:
            # Everything that is decoded before a keyframe is shown before it.
            if packet.key:
                return False
            ascending = False
        latest = packet.pts if latest is None else max(latest, packet.pts)
    if not ascending or not stream.codec_context.has_b_frames:
        return True
    # A decoder that reorders, and stamps in decoding order: they may be made up.
    container, stream = open_container(path, stream.index)
    with container:
        frames = decoded(demuxed(container, stream), lambda *_: None)
        stamps = [frame.pts for frame in itertools.islice(frames, _LOOKED_AT)]
    return _ascending(stamps)


def _ascending(stamps: list[int | None]) -> bool:
    return None not in stamps and all(a < b for a, b in itertools.pairwise(stamps))


def _stamps_by_decoding(path: Path, number: int, by_dts: bool) -> list[int | None]:
    """Decode a whole file; return its frames' stamps."""
    container, stream = open_container(path, number)
    with container:
        frames = decoded(demuxed(container, stream), lambda *_: None)
        return [frame.dts if by_dts else frame.pts for frame in frames]


def _ticks_of_counted(packets: list[Packet], count: int) -> list[int]:
    """When counted frames are shown, if the packets say it of as many, else an empty list.

    Reordering moves pictures among the stamps, not the stamps: a gap stays a gap.
    """
    for stamps in ([p.pts for p in packets], [p.dts for p in packets]):
        if None not in stamps and len(set(stamps)) == count == len(stamps):
            return sorted(stamps)
    return []


def _last_duration(
    container: av.container.InputContainer, packets: list[Packet], ticks: list[int]
) -> int:
    """The length of the last shown picture, in ticks; 0 where it is not said."""
    if container.format.name.startswith("mov") or not ticks:
        # Durations in mp4 are steps between decoding stamps, so with reordered frames only that of
        # the last packet is the length of a frame on the screen: what follows the last stamp.
        return packets[-1].duration
    shown_last = max(packets, key=lambda p: p.dts if p.pts is None else p.pts)
    return shown_last.duration or packets[-1].duration


def _cut_by_list(stream: av.video.stream.VideoStream, packets: list[Packet]) -> Cut | None:
    """Compare with the list of frames that mp4 keeps apart from their data.

    Other containers list none or some, and fragments have lists of their own.
    """
    entries = stream.index_entries
    if not stream.frames or len(entries) <= len(packets):
        return None
    # Entries without data make no packet even in a whole file.
    missing = sum(entries[i].size > 0 for i in range(len(entries))) - len(packets)
    # The list also says how long the whole is.
    end = float((stream.duration or 0) * stream.time_base)
    return Cut(missing, end) if missing > 0 else None


def _compare_with_header(
    path: Path,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    pictures: tuple[float, float, int],
    complained: list[Complaint],
) -> tuple[Cut | None, float]:
    """Compare with what the header says of the whole: its bytes, and when the pictures end.

    `pictures` are those that were found: their begin and end in seconds on the container's clock,
    and how many. Returns what is missing, and when the last picture ends by a header that grants it
    longer in a file of which all is there (0: as found).
    """
    begin, end, count = pictures
    size = declared_size(path, container.format.name)
    truncated = size is not None and path.stat().st_size < size
    promised, of_pictures = promised_end(path, container, stream) or (0.0, False)
    # What is cut off may be short; what a whole file lacks is more than rounding.
    slack = 1.5 * (end - begin) / count if truncated else _SLACK
    short = promised > end + slack
    if short and not of_pictures:
        # Sound or subtitles may be longer; so much of the whole as they have is there.
        short = promised > max(end, other_streams_end(path, stream.index)) + slack
    if short and (truncated or size is None or complained):
        frames = round((promised - end) / (end - begin) * count) if end > begin else 1
        return Cut(max(frames, 1), promised - begin), 0.0
    if truncated:
        return Cut(0, promised - begin if of_pictures else 0.0), 0.0
    return None, promised if short else 0.0


def _cut_words(path: Path, index: Index, cut: Cut) -> str:
    there = len(index.stamps)
    if cut.frames:
        return (
            f"{path} is cut short: {there} of its {there + cut.frames} frames are there; download "
            "it again"
        )
    return f"{path} is cut short: what is there lasts {index.duration:.2f} s; download it again"


def _start(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    first: int | None,
) -> float:
    """When the first frame is shown on the clock of players, which starts with the first stream.

    Sound may begin before that clock, to be thrown away.
    """
    if first is None or container.start_time is None:
        return 0.0
    begin = max(container.start_time, 0) / av.time_base
    start = float(first * stream.time_base) - begin
    # Clocks of other ticks agree to a few of them.
    return start if start > 0.002 else 0.0


def _times(
    stream: av.video.stream.VideoStream,
    count: int,
    ticks: list[int],
    cut: Cut | None,
    last_duration: int,
) -> tuple[float, np.ndarray, float, bool]:
    """Return (fps, seconds of every frame, duration in seconds, constant rate?).

    `ticks` are the stamps of the `count` frames that are there, empty where they have none. The
    frames that are cut off follow; their times are spread evenly.
    """
    tick = stream.time_base
    total = count + (cut.frames if cut else 0)
    rates = _rates(stream, ticks)
    if not ticks:
        rate = rates[0]
        return rate, np.arange(total) / rate, total / rate, True
    seconds = (np.array(ticks, dtype=np.int64) - ticks[0]) * float(tick)
    last = float(last_duration * tick)
    if count == 1 and last_duration:
        rates.insert(0, 1 / last)
    for rate in rates:
        # Containers with coarse ticks (1 ms in mkv) round the times of a constant rate. A tick of
        # about a frame leaves no room for that: there, one tick off is a missing frame.
        slack = 1.01 * float(tick) if float(tick) * rate < 0.5 else 1e-6
        constant = np.abs(seconds - np.arange(count) / rate).max() <= slack
        if constant and (last <= 0 or abs(last - 1 / rate) <= slack):
            return rate, np.arange(total) / rate, total / rate, True
    step = last
    if step <= 0:
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    duration = float(seconds[-1]) + step
    if cut and cut.frames:
        duration = max(cut.end, duration)
        rest = np.linspace(seconds[-1], duration, cut.frames + 2)[1:-1]
        seconds = np.concatenate([seconds, rest])
    return total / duration, seconds, duration, False


def _rates(stream: av.video.stream.VideoStream, ticks: list[int]) -> list[float]:
    """The rates that may be the file's, the likeliest first."""
    rates = [stream.average_rate, stream.base_rate, stream.guessed_rate]
    if not ticks:
        # Without stamps the average is FFmpeg's own default; the guess looks into the codec too.
        rates.reverse()
    return [float(rate) for rate in rates if rate and 0 < rate <= 1000] or [25.0]
