"""Frames and pictures of Qwen-VL: resized to about their own size, cut into patches.

The sizes are those of the library's processors (`smart_resize` of Qwen2-VL for pictures and of
Qwen3-VL for videos) and the cap on a frame is that of the vendor's own (`qwen-vl-utils`). Pixels
are resized by PIL's bicubic filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distime.backbones.pixels import ImageError, to_image
from distime.model.raw_pixels import normalise


def fitting_size(
    width: int, height: int, factor: int, min_pixels: float, max_pixels: float
) -> tuple[int, int]:
    """The size, in multiples of `factor`, that a picture is resized to.

    Args:
        width: of the picture.
        height: of the picture.
        factor: side in pixels of what becomes one token.
        min_pixels: least area; smaller pictures are enlarged.
        max_pixels: greatest area.

    Returns:
        width and height, which keep the aspect ratio about.

    Raises:
        ImageError: one side is more than 200 times the other.
    """
    if max(width, height) / min(width, height) > 200:
        raise ImageError(
            f"a picture of {width} x {height} pixels: one side is more than 200 times the other, "
            "which Qwen-VL does not take; cut it"
        )
    wide, high = round(width / factor) * factor, round(height / factor) * factor
    if wide * high > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
        high = max(factor, math.floor(height / shrink / factor) * factor)
    elif wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        wide, high = (math.ceil(side * grow / factor) * factor for side in (width, height))
    return wide, high


def frame_size(
    width: int,
    height: int,
    num_frames: int,
    factor: int,
    frames_per_slot: int,
    min_pixels: int,
    max_pixels: int,
    max_frame_tokens: int,
) -> tuple[int, int]:
    """The size that every frame of a video is resized to.

    Args:
        width: of the frames.
        height: of the frames.
        num_frames: of the video.
        factor: side in pixels of what becomes one token.
        frames_per_slot: frames that are merged into one.
        min_pixels: least area of all frames together.
        max_pixels: greatest area of all frames together: the budget of the video.
        max_frame_tokens: most tokens of one frame.

    Returns:
        width and height.
    """
    if min(width, height) < factor:  # as the library does: first enlarged to a token's side
        scale = max(factor / width, factor / height)
        width, height = int(width * scale), int(height * scale)
    cap = max(min(max_frame_tokens * factor**2, max_pixels // num_frames), int(min_pixels * 1.05))
    # As the library: the area of whole slots is compared, and that of frames scaled.
    whole = max(1, round(num_frames / frames_per_slot)) * frames_per_slot
    wide, high = round(width / factor) * factor, round(height / factor) * factor
    if whole * wide * high > cap * num_frames:
        shrink = math.sqrt(width * height / cap)
        sides = (max(1, math.floor(side / shrink / factor)) for side in (width, height))
    elif whole * wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (num_frames * width * height))
        sides = (math.ceil(side * grow / factor) for side in (width, height))
    else:
        return wide, high
    wide, high = (side * factor for side in sides)
    return wide, high


def within_budget(
    shown: tuple[int, int],
    size: tuple[int, int],
    num_slots: int,
    factor: int,
    max_tokens: int | None,
) -> tuple[int, int]:
    """The size that the frames of a video are resized to, to keep to a budget of tokens.

    Args:
        shown: width and height without one.
        size: of the frames in the file, whose aspect ratio is kept about.
        num_slots: of the video.
        factor: side in pixels of what becomes one token.
        max_tokens: of the video; None for no budget.

    Returns:
        width and height.

    Raises:
        ImageError: not even one token is left for each slot.
    """
    if max_tokens is not None and num_slots > max_tokens:
        raise ImageError(
            f"a video of {num_slots} slots and max_video_tokens {max_tokens}: give fewer frames, "
            "or more tokens"
        )
    if max_tokens is None or shown[0] * shown[1] // factor**2 * num_slots <= max_tokens:
        return shown
    most = max_tokens // num_slots
    columns = min(max(1, math.isqrt(most * size[0] // size[1])), most)
    rows = min(max(1, math.isqrt(most * size[1] // size[0])), most // columns)
    return columns * factor, rows * factor


def patches(
    frames: Sequence[np.ndarray | Image.Image],
    size: tuple[int, int],
    *,
    patch_size: int,
    merge_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    raw: bool = False,
) -> Tensor:
    """The patches of one slot.

    Args:
        frames: those that are merged into it.
        size: width and height that they are resized to.
        patch_size: side of a patch.
        merge_size: patches on either side of what becomes one token.
        mean: of red, green and blue, on the scale 0 to 1.
        std: likewise.
        raw: leave the pixels uint8.

    Returns:
        float32 `(h * w, 3 * len(frames) * patch_size**2)`; the patches of one token lie together.
    """
    resized = [np.asarray(to_image(one).resize(size, Image.Resampling.BICUBIC)) for one in frames]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
    rows, columns = size[1] // patch_size, size[0] // patch_size
    cut = pixels.reshape(
        len(frames), 3,
        rows // merge_size, merge_size, patch_size,
        columns // merge_size, merge_size, patch_size,
    )  # fmt: skip
    # (row of tokens, column of tokens, row in it, column in it, colour, frame, y, x)
    cut = cut.permute(2, 5, 3, 6, 1, 0, 4, 7).reshape(rows * columns, -1)
    return cut if raw else normalise(cut, mean, std)
