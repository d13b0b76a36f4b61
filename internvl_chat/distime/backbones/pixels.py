"""From pictures to pixel tensors of one size, bit for bit as published.

A picture is resized to a square by PIL's bicubic filter (nothing cropped, the aspect ratio given
up), divided by 255 and normalised. Frames of a video are one square each; a still image may be cut
into tiles of about its own aspect ratio (`tile_image`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from distime.errors import DisTimeError
from distime.model.raw_pixels import normalise

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageError(DisTimeError):
    """A picture cannot be used; the message names the file and says the mend."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB; what is transparent has the colour beneath.

    Raises ImageError for a mode in which no number is agreed to be white.
    """
    # Earlier versions of Pillow call the 16 bits of these formats 32.
    has_16_bits = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if image.mode in ("I", "F") and not has_16_bits:
        raise ImageError(
            f"{image.format} of 32-bit {'floats' if image.mode == 'F' else 'integers'}, which do "
            "not say what is white; save it with 8 or 16 bits a colour"
        )
    if image.mode.startswith("I"):
        # Pillow would clip at 255. As for 16-bit colours, it is the upper 8 bits that are shown.
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    return image.convert("RGB")


def to_image(frame: np.ndarray | Image.Image) -> Image.Image:
    """Return a frame (uint8 RGB array (H, W, 3), or a picture) as an RGB picture."""
    if isinstance(frame, Image.Image):
        return frame if frame.mode == "RGB" else as_rgb(frame)
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ImageError(
            f"a frame has shape {frame.shape} and type {frame.dtype}; give uint8 RGB (H, W, 3)"
        )
    return Image.fromarray(np.ascontiguousarray(frame))


def frames_to_pixels(
    frames: np.ndarray | Iterable[np.ndarray | Image.Image],
    image_size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    raw: bool = False,
) -> torch.Tensor:
    """Return n frames or pictures as a float32 tensor ``(n, 3, image_size, image_size)``.

    `frames` is uint8 RGB ``(n, H, W, 3)`` or an iterable of such frames or pictures, of any sizes.
    `mean` and `std` are of the red, green and blue channel on the scale 0 to 1. With `raw` the
    tensor is uint8 and not normalised yet.
    """
    size = (image_size, image_size)
    squares = [
        np.asarray(to_image(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames
    ]
    if not squares:
        dtype = torch.uint8 if raw else torch.float32
        return torch.empty(0, 3, image_size, image_size, dtype=dtype)
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
    return pixels if raw else normalise(pixels, mean, std)


def tile_grid(
    width: int, height: int, image_size: int, min_num: int = 1, max_num: int = 12
) -> tuple[int, int]:
    """Return (columns, rows) of the grid of `min_num` to `max_num` tiles nearest in aspect ratio.

    Of grids equally near, a larger one is taken when the picture has more than half its pixels.
    """
    if not 1 <= min_num <= max_num:
        raise ValueError(f"min_num {min_num} and max_num {max_num} must be 1 <= min <= max")
    # A set, as published: its order decides between grids of equal area and equal nearness.
    grids = {
        (columns, rows)
        for number in range(min_num, max_num + 1)
        for columns in range(1, number + 1)
        for rows in range(1, number + 1)
        if min_num <= columns * rows <= max_num
    }
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - columns / rows)
        if difference < nearest:
            best, nearest = (columns, rows), difference
        elif difference == nearest and width * height > 0.5 * image_size**2 * columns * rows:
            best = (columns, rows)
    return best


def tile_image(
    image: Image.Image | np.ndarray,
    image_size: int,
    *,
    min_num: int = 1,
    max_num: int = 12,
    use_thumbnail: bool = True,
) -> list[Image.Image]:
    """Cut a picture into square tiles of `image_size`, row by row, as InternVL does.

    The picture is first stretched onto the grid of `tile_grid`. With `use_thumbnail` and more than
    one tile, the whole picture as one square comes last.
    """
    image = to_image(image)
    columns, rows = tile_grid(*image.size, image_size, min_num, max_num)
    # PIL's default filter for RGB, spelled out because the published code leaves it unsaid.
    bicubic = Image.Resampling.BICUBIC
    stretched = image.resize((columns * image_size, rows * image_size), bicubic)
    tiles = [
        stretched.crop((x, y, x + image_size, y + image_size))
        for y in range(0, rows * image_size, image_size)
        for x in range(0, columns * image_size, image_size)
    ]
    if use_thumbnail and len(tiles) > 1:
        tiles.append(image.resize((image_size, image_size), bicubic))
    return tiles
