"""Video files: any frame of them, decoded exactly."""

from __future__ import annotations

import bisect
import itertools
import logging
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np

from distime.processing.video.container import decoded, demuxed, open_container
from distime.processing.video.packets import Keyframe, read_index
from distime.processing.video.reader import VideoError, VideoReader, same_size

logger = logging.getLogger(__name__)

# Seeking flushes the decoder and reads from the file again: not worth it for fewer packets.
SEEK_GAIN = 8


class _Damage:
    """What went wrong in one run of the decoder.

    Attributes:
        places: of the packets concerned, in decoding order.
        reason: what the decoder said first.
    """

    def __init__(self) -> None:
        self.places: dict[int, bool] = {}  # place -> whether other pictures may refer to it
        self.reason = ""


class _OutOfOrder(Exception):
    """The decoder gives the pictures in another order than their stamps."""


class FileReader(VideoReader):
    """A video file: its times from the packet index, its frames from the keyframes before them.

    Seeks to the keyframe before a wanted frame where that saves decoding, else reads on.
    """

    def __init__(self, path: Path):
        self._container, self._stream = open_container(path)
        self._number = self._stream.index
        try:
            self._index = read_index(path, self._container, self._stream)
        except BaseException:
            self._container.close()
            raise
        index = self._index
        super().__init__(path, index.fps, index.seconds, index.duration)
        self.constant_rate = index.constant_rate
        self.start = index.start
        self.warnings = list(index.warnings)
        self.num_missing = self.num_frames - len(index.stamps)

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        """See `VideoReader.frames`; frames that were cut off are a VideoError."""
        indices = list(indices)
        readable = len(self._index.stamps)
        missing = sum(readable <= index < self.num_frames for index in set(indices))
        if missing:
            raise VideoError(
                f"{self.path}: the file is cut short: only the first {readable} of its "
                f"{self.num_frames} frames could be decoded, and {missing} of the wanted frames "
                "lie behind them; download it again"
            )
        return super().frames(indices)

    def close(self) -> None:
        """See `VideoReader.close`."""
        self._container.close()

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        try:
            return self._decode_stamps([self._index.stamps[i] for i in indices])
        except _OutOfOrder:
            logger.warning(
                "%s: its time stamps are not in order; its frames are counted", self.path
            )
        self._reopen()
        self._index = read_index(self.path, self._container, self._stream, count=True)
        stamps = self._index.stamps
        return self._decode_stamps([stamps[min(i, len(stamps) - 1)] for i in indices])

    def _decode_stamps(self, wanted: list[int]) -> list[np.ndarray]:
        found: dict[int, np.ndarray] = {}
        broken: set[int] = set()
        reason = ""
        for start, stamps in self._runs(wanted):
            damage, _ = self._decode_run(start, stamps, found)
            if damage.places and start is not None:
                # A keyframe in the middle of a file may not be all that the decoder asks for: what
                # it also complains of when it comes from further back is damaged.
                again, _ = self._decode_run(self._before(start), stamps, {})
                for place in damage.places.keys() - again.places.keys():
                    del damage.places[place]
            if damage.places:
                reason = reason or damage.reason
                broken.update(stamp for stamp in stamps if self._is_broken(stamp, damage))
        missing = [stamp for stamp in wanted if stamp not in found]
        if missing:
            # A keyframe that was none (gradual refresh) or a frame that is never shown: from the
            # start of the file everything that can be decoded is.
            logger.info("%s: decoding from the start for %d frames", self.path, len(missing))
            damage, seen = self._decode_run(None, missing, found, hold=True)
            missing = [stamp for stamp in missing if stamp not in found]
            if missing:
                words = f" ({damage.reason})" if damage.reason else ""
                raise VideoError(
                    f"{self.path}: {len(missing)} of {len(wanted)} wanted frames are missing: only "
                    f"{seen} of {self.num_frames} could be decoded{words}; download it again"
                )
        if broken:
            self._warn(
                f"{self.path} is damaged: {len(broken)} of the {len(wanted)} frames used are "
                f"broken ({reason}); download it again"
            )
        first = found[wanted[0]]
        return [same_size(found[stamp], first.shape) for stamp in wanted]

    def _warn(self, words: str) -> None:
        logger.warning("%s", words)
        self.warnings.append(words)

    def _is_broken(self, stamp: int, damage: _Damage) -> bool:
        """Whether a frame is damaged, or refers to what is: all frames up to the next keyframe."""
        index = self._index
        place = index.position.get(stamp, stamp)  # counted frames: reordering moves them by a few
        before = bisect.bisect_right(index.key_places, place) - 1
        begin = index.key_places[before] if before >= 0 else 0
        return any(
            one == place or begin <= one < place and refers for one, refers in damage.places.items()
        )

    def _before(self, keyframe: Keyframe) -> Keyframe | None:
        place = self._index.keyframes.index(keyframe)
        return self._index.keyframes[place - 1] if place else None

    def _runs(self, wanted: list[int]) -> list[tuple[Keyframe | None, list[int]]]:
        """Split ascending stamps into runs decoded in one go from a keyframe (None: the start)."""
        index = self._index
        runs: list[tuple[Keyframe | None, list[int]]] = []
        if index.counted:
            return [(None, wanted)]
        starts = [packet.pts for packet in index.keyframes]
        reached = 0  # the place in decoding order where the run so far would stop
        for stamp in wanted:
            # Frames shown before a keyframe may refer to frames before it: take the one before.
            place = bisect.bisect_right(starts, stamp) - 1
            keyframe = index.keyframes[place] if place >= 0 else None
            if keyframe is not None and keyframe.position - reached > SEEK_GAIN:
                runs.append((keyframe, [stamp]))
            elif runs:
                runs[-1][1].append(stamp)
            else:
                runs.append((None, [stamp]))
            reached = max(reached, index.position.get(stamp, 0))
        return runs

    def _decode_run(
        self,
        start: Keyframe | None,
        stamps: list[int],
        found: dict[int, np.ndarray],
        hold: bool = False,
    ) -> tuple[_Damage, int]:
        """Decode from a keyframe until all `stamps` are found or passed.

        With `hold`, a stamp that no frame has gets what is on the screen then: the frame before.

        Returns what was damaged, and how many frames were seen.
        """
        wanted = set(stamps)
        pending = sorted(stamps)
        damage = _Damage()
        seen, before = 0, None
        counted = self._index.counted
        places = itertools.count()

        def numbered(packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
            for packet in packets:
                self._place = next(places)
                yield packet

        def report(packet: av.Packet, reason: str) -> None:
            if packet.pts is not None and start is not None and packet.pts < start.pts:
                return  # shown before the keyframe, and refers to what was not decoded
            place = self._place if counted else self._index.position.get(packet.pts)
            if place is not None:
                damage.places[place] = not packet.is_disposable
            damage.reason = damage.reason or reason

        packets = numbered(self._packets_from(start))
        for frame in decoded(packets if hold else self._skipping(packets, wanted), report):
            stamp = seen if counted else frame.dts if self._index.by_dts else frame.pts
            seen += 1
            if stamp is None:
                continue
            if before is not None and stamp <= before[0]:
                if not damage.places:
                    raise _OutOfOrder
                continue
            while pending and pending[0] < stamp:
                late = pending.pop(0)
                if hold and not damage.reason:
                    found[late] = _to_rgb(before[1] if before else frame)
            if stamp in wanted:
                found[stamp] = _to_rgb(frame)
                pending = [other for other in pending if other != stamp]
            if not pending:
                break
            before = stamp, frame
        return damage, seen

    def _skipping(self, packets: Iterable[av.Packet], wanted: set[int]) -> Iterator[av.Packet]:
        """Let the decoder pass over frames that are neither wanted nor referred to.

        Only for h264, where a picture says of itself that no other refers to it.
        """
        skip = self._stream.codec_context.name == "h264" and not self._index.counted
        for packet in packets:
            if skip:
                # The packet's own context: opening the file again makes another.
                context = packet.stream.codec_context
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield packet

    def _packets_from(self, start: Keyframe | None) -> Iterator[av.Packet]:
        """Yield the packets from a keyframe on, or all of them."""
        if start is None:
            self._reopen()
            yield from self._demux()
            return
        # Files are indexed by the one or the other stamp; where neither leads to the keyframe or
        # before it, the start of the file does.
        for offset in dict.fromkeys((start.pts, start.dts, None)):
            if offset is None:
                self._reopen()
            else:
                try:
                    self._container.seek(offset, stream=self._stream, backward=True)
                except av.error.FFmpegError:
                    continue
                self._stream.codec_context.flush_buffers()
            packets = self._demux()
            first = next(packets, None)
            place = self._index.position.get(first.pts) if first is not None else None
            if place is None or place > start.position:
                continue
            while first is not None and first.pts != start.pts:
                first = next(packets, None)
            if first is not None:
                yield first
                yield from packets
                return

    def _demux(self) -> Iterator[av.Packet]:
        for packet in demuxed(self._container, self._stream):
            if self._index.by_dts and packet.size:
                packet.pts = packet.dts
            yield packet

    def _reopen(self) -> None:
        self._container.close()
        self._container, self._stream = open_container(self.path, self._number)


def _to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Convert a decoded frame to upright uint8 RGB (H, W, 3)."""
    # One thread: starting more for each frame costs more than it saves.
    picture = frame.to_ndarray(format="rgb24", threads=1)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    # The matrix takes the stored place (x, y) to (a x + c y, b x + d y) on the screen.
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
    else:
        picture = picture.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    return np.ascontiguousarray(picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
