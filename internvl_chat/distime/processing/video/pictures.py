"""Folders of frames, animated pictures and still images, read by Pillow."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from PIL import Image

from distime.processing.video.reader import VideoError, VideoReader, same_size

logger = logging.getLogger(__name__)

FRAME_FOLDER_FPS = 3.0  # of MVBench's folders, the only ones that were published
ANIMATION_SUFFIXES = {".gif", ".webp", ".png", ".apng"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


class FolderReader(VideoReader):
    """A folder of numbered frames, ``00001.jpg`` the first."""

    first_index = 1

    def __init__(self, path: Path, fps: float):
        try:
            numbered = sorted(
                (int(file.stem), file)
                for file in path.iterdir()
                if re.fullmatch(r"\d+", file.stem) and file.suffix.lower() in IMAGE_SUFFIXES
            )
        except OSError as error:
            raise VideoError(f"{path}: the folder cannot be read: {error.strerror}") from error
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
        return [same_size(frame, frames[0].shape) for frame in frames]


class AnimationReader(VideoReader):
    """An animated gif, webp or png.

    Args:
        path: of the file.
        fps: show so many pictures a second whatever the file says; then the duration is that of
            the last picture's start, as published evaluations have it for gifs.
    """

    def __init__(self, path: Path, fps: float | None = None):
        with _opened_picture(path) as image:
            # A png may begin with a picture for viewers that know no animations.
            self._first = int(bool(getattr(image, "default_image", False)))
            count = getattr(image, "n_frames", 1) - self._first
            delays = [] if fps else _delays(path, image, self._first, count)
        if fps:
            super().__init__(path, fps, np.arange(count) / fps, max(count - 1, 1) / fps)
        else:
            ends = np.cumsum(delays)
            seconds = np.concatenate([[0.0], ends[:-1]])
            super().__init__(path, count / float(ends[-1]), seconds, float(ends[-1]))
            self.constant_rate = bool(
                np.abs(seconds - np.arange(count) / self.fps).max() < 1e-6
                and abs(delays[-1] - 1 / self.fps) < 1e-6
            )
        if _is_cut(path):
            self.warnings.append(
                f"{path} is cut short: what is there lasts {self.duration:.2f} s; download it again"
            )
            logger.warning("%s", self.warnings[-1])

    def _decode(self, indices: list[int]) -> list[np.ndarray]:
        wanted, frames = set(indices), []
        with _opened_picture(self.path) as image:
            index = 0
            try:
                for index in range(indices[-1] + 1):
                    image.seek(index + self._first)
                    if index in wanted:
                        frames.append(np.asarray(image.convert("RGB")))
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                raise VideoError(
                    f"{self.path}: only {index} of {self.num_frames} frames could be decoded "
                    f"({error}); download it again"
                ) from error
        return frames


def _delays(path: Path, image: Image.Image, first: int, count: int) -> list[float]:
    """Return how long each picture of an animation is shown, in seconds."""
    delays = []
    try:
        for index in range(count):
            image.seek(index + first)
            image.load()  # webp tells the delay of what it has decoded
            delays.append(float(image.info.get("duration", 0)))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise VideoError(
            f"{path}: only {len(delays)} of {count} frames could be decoded ({error}); download it "
            "again"
        ) from error
    # Browsers show for 0.1 s what names no time, or one too short to be meant.
    return [delay / 1000 if delay > 10 else 0.1 for delay in delays]


def _is_cut(path: Path) -> bool:
    """Whether the end of a gif, webp or png is missing."""
    with path.open("rb") as file:
        head = file.read(8)
        size = file.seek(0, 2)
        file.seek(max(size - 64, 0))
        tail = file.read()
    if head.startswith(b"GIF8"):
        return not tail.rstrip(b"\0").endswith(b";")
    if head.startswith(b"RIFF"):
        return size < 8 + int.from_bytes(head[4:8], "little")
    return head.startswith(b"\x89PNG") and b"IEND" not in tail


def is_animated(path: Path) -> bool:
    """Whether a picture file has several pictures to be shown one after the other.

    Raises VideoError where it cannot be read.
    """
    with _opened_picture(path) as image:
        return image.format in ("GIF", "WEBP", "PNG") and getattr(image, "n_frames", 1) > 1


class ImageReader(VideoReader):
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
    # Here, since pixels need torch, for which no command that opens no picture should wait.
    from distime.processing.image import ImageError, load_image

    try:
        return np.asarray(load_image(path))
    except ImageError as error:
        raise VideoError(str(error)) from error
