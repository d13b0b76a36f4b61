"""What every video is to the rest of the package: frames, and when each is shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from distime.errors import DisTimeError


class VideoError(DisTimeError):
    """A video cannot be used; the message names the file and says the mend."""

    def __init__(self, message: str):
        # A file's name may be no text, which could not be printed or written.
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))


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
        start: seconds from the start of the container's clock, on which players go, to the first
            frame: more than 0 where the pictures begin after the sound.
        warnings: what is wrong with the file and does not keep it from being used, one line each.
        num_missing: of `num_frames`, those at the end that a file cut short does not hold.
        first_index: the published number of the first frame, 1 for a folder of frames; its
            published frame times are ``(index + first_index) / fps``.
    """

    constant_rate = True
    first_index = 0
    start = 0.0
    num_missing = 0

    def __init__(self, path: Path, fps: float, timestamps: np.ndarray, duration: float):
        self.path = path
        self.fps = fps
        self.timestamps = timestamps
        self.num_frames = len(timestamps)
        self.duration = duration
        self.warnings: list[str] = []

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


def same_size(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize a frame whose size changed within the video to that of the first one."""
    if frame.shape == shape:
        return frame
    return np.asarray(Image.fromarray(frame).resize(shape[1::-1], Image.Resampling.BICUBIC))
