"""Read frames and their true times from video files, gifs, folders of frames and still images.

:func:`open_video` gives a :class:`VideoReader`: the times of all frames, and any of them decoded
exactly, upright, in presentation order. Files are indexed by PyAV, which reads the packets without
decoding (milliseconds); the frames are then decoded by the chosen backend:

========== ====================================== =================================
backend    decodes with                           needs
========== ====================================== =================================
pyav       FFmpeg, bundled in the wheel (default) nothing more
torchcodec FFmpeg of the system                   ``pip install torchcodec``, FFmpeg
decord     FFmpeg, bundled in the wheel           ``pip install decord``
opencv     FFmpeg, bundled in the wheel           ``pip install opencv-python-headless``
========== ====================================== =================================

Everything wrong with a file is a :class:`VideoError` that names it. ``docs/VIDEO_DECODING.md`` has
measurements and the treatment of odd files.
"""

from __future__ import annotations

import bisect
import importlib
import logging
import os
import re
import struct
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image, ImageSequence

from distime.errors import DisTimeError

logger = logging.getLogger(__name__)

# Evaluation reads MVBench's folders of frames at 3 frames a second and its gifs at 25.
FRAME_FOLDER_FPS = 3.0
GIF_FPS = 25.0
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}

# Seeking flushes the decoder and reads from the file again: not worth it for fewer packets.
SEEK_GAIN = 8


class VideoError(DisTimeError):
    """A video cannot be used; the message names the file and says the mend."""


class VideoReader(ABC):
    """An open video; a context manager.

    Attributes:
        path: what was opened.
        num_frames: the number of frames shown.
        fps: frames per second on average.
        timestamps: float64 ``(num_frames,)``, seconds of every frame, the first one 0.
        duration: seconds from the first frame to the end of the last.
        constant_rate: whether ``timestamps`` are ``index / fps`` and ``duration`` is
            ``num_frames / fps`` (a gif's duration is one frame less, as published).
        first_index: the published number of the first frame, 1 for a folder of frames; its
            published frame times are ``(index + first_index) / fps``.
    """

    constant_rate = True
    first_index = 0

    def __init__(self, path: Path, fps: float, timestamps: np.ndarray, duration: float):
        self.path = path
        self.fps = fps
        self.timestamps = timestamps
        self.num_frames = len(timestamps)
        self.duration = duration

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        """Decode frames, in the order asked for, as uint8 RGB ``(n, H, W, 3)``.

        Indices count from 0 in presentation order; they may repeat and come in any order. Each
        frame is decoded once.

        Raises IndexError for an index outside the video, VideoError for frames that cannot be
        decoded, saying how many can.
        """
        indices = [int(index) for index in indices]
        for index in indices:
            if not 0 <= index < self.num_frames:
                raise IndexError(f"{self.path}: no frame {index} of {self.num_frames}")
        if not indices:
            raise ValueError(f"{self.path}: no frames asked for")
        unique = sorted(set(indices))
        decoded = dict(zip(unique, self._decode(unique), strict=True))
        return np.stack([decoded[index] for index in indices])

    @abstractmethod
    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        """Decode frames of one size for ascending indices without repeats."""

    def close(self) -> None:  # noqa: B027 (readers that keep nothing open have nothing to do)
        """Release the file; the times stay readable."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---------------------------------------------------------------------------------------------
# The packet index
# ---------------------------------------------------------------------------------------------


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    hidden: bool  # cut away by an edit list: decoded, not shown
    cut: bool  # not all of its data is there


class _Keyframe(NamedTuple):
    pts: int
    dts: int | None
    position: int  # in decoding order


@dataclass(frozen=True)
class _Index:
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
    keyframes: list[_Keyframe]  # ascending in pts
    position: dict[int, int]  # stamp -> place in decoding order
    counted: bool


def _open_container(path: Path) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    """Open a file with PyAV and find its video stream."""
    # The prefix keeps FFmpeg from taking a name with a colon for a protocol.
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: no video file that FFmpeg can read ({_reason(error)}); it may be cut "
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


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _read_index(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> _Index:
    """Read all packets of a stream and say which frames there are, and when."""
    packets: list[_Packet] = []
    try:
        packets.extend(
            _Packet(
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
            _Keyframe(p.pts, p.dts, place)
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
    return _Index(stamps, seconds, fps, duration, constant_rate, keyframes, position, counted)


def _stamps_by_decoding(path: Path) -> tuple[list[int], bool]:
    """Decode a whole file; return its frames' stamps, or counts (and True) where they are bad."""
    container, stream = _open_container(path)
    with container:
        stamps = [frame.pts for frame in _decoded(container.demux(stream), [])]
    good = None not in stamps and all(a < b for a, b in zip(stamps, stamps[1:], strict=False))
    return (stamps, False) if good else (list(range(len(stamps))), True)


def _decoded(packets: Iterable[av.Packet], errors: list[str]) -> Iterator[av.VideoFrame]:
    """Decode packets, going on after damaged ones, whose errors are appended to `errors`."""
    for packet in packets:
        if packet.size == 0 and packet.dts is not None:
            continue  # a frame without data; the decoder would take it for the end
        try:
            yield from packet.decode()
        except av.error.FFmpegError as error:
            errors.append(_reason(error))


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


# ---------------------------------------------------------------------------------------------
# Backends for video files
# ---------------------------------------------------------------------------------------------


class _FileReader(VideoReader):
    """A video file: its times from the packet index, its frames from a subclass."""

    def __init__(self, path: Path):
        self._container, self._stream = _open_container(path)
        try:
            self._index = _read_index(path, self._container, self._stream)
        except BaseException:
            self._container.close()
            raise
        index = self._index
        super().__init__(path, index.fps, index.seconds, index.duration)
        self.constant_rate = index.constant_rate

    def frames(self, indices: Iterable[int]) -> np.ndarray:
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
        self._container.close()


class _PyAVReader(_FileReader):
    """Seeks to the keyframe before a wanted frame where that saves decoding, else reads on."""

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        index = self._index
        wanted = [index.stamps[i] for i in indices]
        found: dict[int, np.ndarray] = {}
        errors: list[str] = []
        for start, stamps in self._runs(wanted):
            self._decode_run(start, stamps, found, errors)
        missing = [stamp for stamp in wanted if stamp not in found]
        if missing:
            # A keyframe that was none (gradual refresh) or a frame that is never shown: from the
            # start of the file everything that can be decoded is.
            logger.info("%s: decoding from the start for %d frames", self.path, len(missing))
            errors.clear()
            decoded = self._decode_run(None, missing, found, errors, hold=True)
            missing = [stamp for stamp in missing if stamp not in found]
            if missing:
                reason = f" ({errors[0]})" if errors else ""
                raise VideoError(
                    f"{self.path}: {len(missing)} of {len(wanted)} wanted frames are missing: only "
                    f"{decoded} of {self.num_frames} could be decoded{reason}; download it again"
                )
        if errors:
            logger.warning("%s: damaged data passed over (%s)", self.path, errors[0])
        first = found[wanted[0]]
        return [_same_size(found[stamp], first.shape) for stamp in wanted]

    def _runs(self, wanted: list[int]) -> list[tuple[_Keyframe | None, list[int]]]:
        """Split ascending stamps into runs decoded in one go from a keyframe (None: the start)."""
        index = self._index
        runs: list[tuple[_Keyframe | None, list[int]]] = []
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
        start: _Keyframe | None,
        stamps: list[int],
        found: dict[int, np.ndarray],
        errors: list[str],
        hold: bool = False,
    ) -> int:
        """Decode from a keyframe until all `stamps` are found or passed; return the frames seen.

        With `hold`, a stamp that no frame has gets what is on the screen then: the frame before.
        """
        wanted = set(stamps)
        pending = sorted(stamps)
        seen, before = 0, None
        packets = self._packets_from(start)
        for frame in _decoded(packets if hold else self._skipping(packets, wanted), errors):
            stamp = seen if self._index.counted else frame.pts
            seen += 1
            if stamp is None:
                continue
            while pending and pending[0] < stamp:
                late = pending.pop(0)
                if hold and not errors:
                    found[late] = _to_rgb(before or frame)
            if stamp in wanted:
                found[stamp] = _to_rgb(frame)
                pending = [other for other in pending if other != stamp]
            if not pending:
                break
            before = frame
        return seen

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

    def _packets_from(self, start: _Keyframe | None) -> Iterator[av.Packet]:
        """Yield the packets from a keyframe on, or all of them."""
        if start is None:
            self._reopen()
            yield from self._container.demux(self._stream)
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
            packets = self._container.demux(self._stream)
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

    def _reopen(self) -> None:
        self._container.close()
        self._container, self._stream = _open_container(self.path)


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


def _same_size(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize a frame whose size changed within the video to that of the first one."""
    if frame.shape == shape:
        return frame
    return np.asarray(Image.fromarray(frame).resize(shape[1::-1], Image.Resampling.BICUBIC))


class _OtherReader(_FileReader):
    """A file whose frames another library decodes; the times stay those of the packet index."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._open()
        except VideoError:
            self.close()
            raise
        except Exception as error:  # each library has error classes of its own
            self.close()
            raise VideoError(
                f"{path}: {type(self).__name__} cannot open it ({error}); try backend='pyav'"
            ) from error

    @abstractmethod
    def _open(self) -> None:
        """Open the file with the other library."""

    @abstractmethod
    def _read(self, indices: list[int]) -> Sequence[np.ndarray]:
        """Return the frames of ascending indices, RGB."""

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        try:
            frames = list(self._read(indices))
        except Exception as error:  # each library has error classes of its own
            raise VideoError(
                f"{self.path}: {type(self).__name__} cannot decode it ({error}); try backend='pyav'"
            ) from error
        if len(frames) != len(indices):
            raise VideoError(
                f"{self.path}: {type(self).__name__} decoded {len(frames)} of {len(indices)} "
                "wanted frames; try backend='pyav'"
            )
        return frames


class _TorchcodecReader(_OtherReader):
    def _open(self) -> None:
        decoders = _import_backend("torchcodec.decoders", "torchcodec", "torchcodec")
        self._decoder = decoders.VideoDecoder(str(self.path), dimension_order="NHWC")

    def _read(self, indices: list[int]) -> Sequence[np.ndarray]:
        return list(self._decoder.get_frames_at(indices).data.numpy())


class _DecordReader(_OtherReader):
    def _open(self) -> None:
        decord = _import_backend("decord", "decord", "decord")
        self._decoder = decord.VideoReader(str(self.path), ctx=decord.cpu(0), num_threads=1)

    def _read(self, indices: list[int]) -> Sequence[np.ndarray]:
        return list(self._decoder.get_batch(indices).asnumpy())


class _OpenCVReader(_OtherReader):
    def _open(self) -> None:
        self._cv2 = _import_backend("cv2", "opencv", "opencv-python-headless")
        capture = self._cv2.VideoCapture(str(self.path))
        opened = capture.isOpened()
        capture.release()
        if not opened:
            raise VideoError(f"{self.path}: OpenCV cannot open it; try backend='pyav'")

    def _read(self, indices: list[int]) -> Sequence[np.ndarray]:
        # OpenCV's own seeking misses frames in some files, so it reads on from the start.
        capture = self._cv2.VideoCapture(str(self.path))
        frames, wanted = [], set(indices)
        try:
            for index in range(indices[-1] + 1):
                if not capture.grab():
                    break
                if index in wanted:
                    frames.append(capture.retrieve()[1][:, :, ::-1].copy())
        finally:
            capture.release()
        return frames


def _import_backend(module: str, backend: str, package: str):
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise VideoError(
            f"the video backend {backend!r} is not usable here ({error}): "
            f"pip install {package}, or choose backend='pyav'"
        ) from error


BACKENDS: dict[str, type[_FileReader]] = {
    "pyav": _PyAVReader,
    "torchcodec": _TorchcodecReader,
    "decord": _DecordReader,
    "opencv": _OpenCVReader,
}


# ---------------------------------------------------------------------------------------------
# Folders of frames, gifs and still images
# ---------------------------------------------------------------------------------------------


class _FolderReader(VideoReader):
    """A folder of numbered frames, ``00001.jpg`` the first."""

    first_index = 1

    def __init__(self, path: Path, fps: float):
        numbered = sorted(
            (int(file.stem), file)
            for file in path.iterdir()
            if re.fullmatch(r"\d+", file.stem) and file.suffix.lower() in IMAGE_SUFFIXES
        )
        if not numbered:
            raise VideoError(
                f"{path}: a folder without numbered frames (00001.jpg, 00002.jpg, ...); "
                "give a video file or a folder of frames"
            )
        numbers = [number for number, _ in numbered]
        if numbers != list(range(1, len(numbers) + 1)):
            wrong = next(n for i, n in enumerate(numbers, 1) if n != i)
            raise VideoError(
                f"{path}: the frames are not numbered 1, 2, 3, ... without gaps or repeats "
                f"(see number {wrong}); extract them again"
            )
        self._files = [file for _, file in numbered]
        count = len(numbered)
        super().__init__(path, fps, np.arange(count) / fps, count / fps)

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        frames = [_read_picture(self._files[index]) for index in indices]
        return [_same_size(frame, frames[0].shape) for frame in frames]


class _GifReader(VideoReader):
    """An animated gif, read at 25 frames a second whatever its delays, as published."""

    def __init__(self, path: Path):
        with _opened_picture(path) as image:
            count = getattr(image, "n_frames", 1)
        # The published duration is that of the last frame's start; one frame needs some length.
        duration = max(count - 1, 1) / GIF_FPS
        super().__init__(path, GIF_FPS, np.arange(count) / GIF_FPS, duration)

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        wanted, frames = set(indices), []
        with _opened_picture(self.path) as image:
            try:
                for index, picture in enumerate(ImageSequence.Iterator(image)):
                    if index in wanted:
                        frames.append(np.asarray(picture.convert("RGB")))
                    if index == indices[-1]:
                        break
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                raise VideoError(
                    f"{self.path}: only {index} of {self.num_frames} frames could be decoded "
                    f"({error}); download it again"
                ) from error
        return frames


class _ImageReader(VideoReader):
    """A still image: one frame that lasts one second."""

    def __init__(self, path: Path):
        with _opened_picture(path):
            pass
        super().__init__(path, 1.0, np.zeros(1), 1.0)

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        return [_read_picture(self.path)]


def _opened_picture(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise VideoError(
            f"{path}: cannot be read as a picture ({error}); download or export it again"
        ) from error


def _read_picture(path: Path) -> np.ndarray:
    with _opened_picture(path) as image:
        try:
            return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise VideoError(
                f"{path}: cannot be decoded ({error}); download or export it again"
            ) from error


# ---------------------------------------------------------------------------------------------


def open_video(
    path: str | os.PathLike[str],
    backend: str = "pyav",
    *,
    folder_fps: float = FRAME_FOLDER_FPS,
) -> VideoReader:
    """Open a video file, a gif, a still image, or a folder of frames numbered from ``00001.jpg``.

    `backend` decodes video files (a name in `BACKENDS`); `folder_fps` is the rate of folders.

    Raises VideoError, which names the file, for anything that cannot be read, and for a backend
    that is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise VideoError(f"no video backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    path = Path(path)
    if path.is_dir():
        return _FolderReader(path, folder_fps)
    if not path.exists():
        raise VideoError(f"{path}: no such video; check the path and the root folder")
    if not path.is_file():
        raise VideoError(f"{path}: neither a file nor a folder; give the path of a video")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty; download it again")
    if path.suffix.lower() == ".gif":
        return _GifReader(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _ImageReader(path)
    return BACKENDS[backend](path)


_X264_PARAMS = "cpu-independent=1"  # one algorithm for all instruction sets


def _exact_yuv(width: int, height: int, rate: Fraction) -> av.filter.Graph:
    """Return a converter from RGB to yuv420p in arithmetic that is the same on every CPU.

    An encoder's own conversion differs by 1 between CPUs with and without AVX2.
    """
    graph = av.filter.Graph()
    steps = [
        graph.add_buffer(width=width, height=height, format="rgb24", time_base=1 / rate),
        graph.add("scale", "flags=bilinear+accurate_rnd+bitexact"),
        graph.add("format", "pix_fmts=yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*steps).configure()
    return graph


def encode_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 23,
    preset: str = "veryfast",
    keyframe_every: int = 250,
    comment: str | None = None,
) -> None:
    """Write frames, uint8 RGB ``(H, W, 3)`` of one even size, as an h264 mp4 file.

    The file appears under its name only when it is complete. The same input gives the same bytes
    on every machine with the same libraries (PyAV's wheel brings x264 and libswscale): with their
    own choices the bytes depend on the CPU's instructions and, in about one file in a hundred,
    change from call to call. `comment` is kept in the file's metadata.

    Raises ValueError for frames of a wrong type or shape, or none.
    """
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: h264 needs an even width and height, not {width}x{height}")
    rate = Fraction(fps).limit_denominator(1001)
    handle, partial = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".mp4", dir=path.parent)
    os.close(handle)
    partial = Path(partial)
    try:
        with av.open(f"file:{partial}", "w", format="mp4") as container:
            if comment is not None:
                container.metadata["comment"] = comment
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1  # more would cut frames where cores are free
            stream.options = {"crf": str(crf), "preset": preset, "g": str(keyframe_every)}
            stream.options |= {"x264-params": _X264_PARAMS}
            to_yuv = _exact_yuv(width, height, rate)
            number = 0
            while first is not None:
                if first.shape != (height, width, 3) or first.dtype != np.uint8:
                    raise ValueError(
                        f"{path}: frame {number} is {first.dtype} {first.shape}, not uint8 "
                        f"{(height, width, 3)}"
                    )
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(first), format="rgb24")
                frame.pts = number
                to_yuv.push(frame)
                container.mux(stream.encode(to_yuv.pull()))
                number += 1
                first = next(frames, None)
            container.mux(stream.encode())
        # mkstemp makes files that only their owner can read.
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
