"""Folders of frames, gifs and still images, read by Pillow."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from distime.processing.video.reader import VideoError, VideoReader, same_size

# Evaluation reads MVBench's folders of frames at 3 frames a second and its gifs at 25.
FRAME_FOLDER_FPS = 3.0
GIF_FPS = 25.0
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


class FolderReader(VideoReader):
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
        return [same_size(frame, frames[0].shape) for frame in frames]


class GifReader(VideoReader):
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
    with _opened_picture(path) as image:
        try:
            return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise VideoError(
                f"{path}: cannot be decoded ({error}); download or export it again"
            ) from error
