"""Reading pictures from files, and changing them as training asks; pixels are the backbone's."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from distime.backbones.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageError,
    as_rgb,
    frames_to_pixels,
    tile_grid,
    tile_image,
    to_image,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ImageError",
    "as_rgb",
    "frames_to_pixels",
    "image_size",
    "jpeg_augment",
    "load_image",
    "tile_grid",
    "tile_image",
    "to_image",
]


def load_image(path: str | Path) -> Image.Image:
    """Read a picture as RGB. Its EXIF orientation is not applied, as in the published code.

    Raises ImageError for a path that is missing, no file, empty or no readable picture, and for a
    picture that is not whole.
    """
    path = Path(path)
    with _opened(path) as image:
        try:
            rgb = as_rgb(image)
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
        is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and not _ends_as_jpeg(path):
        raise ImageError(
            f"{path}: the picture breaks off before its end; download or export it again"
        )
    return rgb


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture in pixels, without decoding it.

    Raises ImageError when it is no readable picture.
    """
    with _opened(Path(path)) as image:
        return image.size


# All that PIL's decoders let escape on damaged files.
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    struct.error,
    zlib.error,
    OverflowError,
    TypeError,
    KeyError,
    IndexError,
)


def _opened(path: Path) -> Image.Image:
    try:
        if not path.exists():
            raise ImageError(f"{path}: no such image; check the path and the root folder")
        if not path.is_file():
            raise ImageError(f"{path}: not a file; give the path of one image")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty; download or export it again")
        return Image.open(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error if str(path) in str(error) else ImageError(f"{path}: {error}")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"{path}: {error}; shrink the image first")
    if isinstance(error, PermissionError):
        return ImageError(f"{path}: {error.strerror}; change its or its folder's permissions")
    if "TEXT_CHUNK" in str(error) or "text chunk" in str(error):
        return ImageError(f"{path}: {error}; save it again without the text beside the picture")
    return ImageError(f"{path}: cannot be read as an image ({error}); download or export it again")


def _ends_as_jpeg(path: Path) -> bool:
    """Whether the last scan of a JPEG is followed by the marker of the end.

    What comes of a broken download may be filled with zeros, and PIL then shows grey in silence.
    Neither marker occurs inside the data of a scan.
    """
    data = path.read_bytes()
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def jpeg_augment(
    frame: np.ndarray | Image.Image,
    rng: random.Random,
    quality: tuple[int, int] = (75, 100),
) -> Image.Image:
    """Return the frame as a JPEG of a random quality shows it (both ends included)."""
    buffer = io.BytesIO()
    to_image(frame).save(buffer, format="JPEG", quality=rng.randint(*quality))
    buffer.seek(0)
    with Image.open(buffer) as image:
        return image.convert("RGB")
