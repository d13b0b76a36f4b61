"""Still pictures as LLaVA shows them ("anyres"): whole, and in squares on a grid of their shape.

A picture keeps its shape on the grid; what it leaves free is black, and rows or columns of tokens
of nothing but that are left out. Numbers and pixels are those of transformers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from PIL import Image
from transformers.image_processing_utils import select_best_resolution

Size = tuple[int, int]
"""Width and height in pixels. Grids are the other way round, as in the library."""


def grids_of(side: int, most: int) -> tuple[Size, ...]:
    """Height and width in pixels of every grid of up to `most` squares either way."""
    steps = [side * number for number in range(1, most + 1)]
    return tuple(itertools.product(steps, steps))


def cut(picture: Image.Image, side: int, grids: Sequence[Size]) -> list[Image.Image]:
    """The whole picture, and behind it the squares of the best of the `grids`, row by row."""
    width, height = picture.size
    rows, columns = select_best_resolution((height, width), grids)
    by_width, by_height = columns / width, rows / height
    if by_width < by_height:
        size = columns, min(math.ceil(height * by_width), rows)
    else:
        size = min(math.ceil(width * by_height), columns), rows
    fitted = picture.resize(size, Image.Resampling.BICUBIC)
    whole = _in_the_middle(fitted, (columns, rows), (0, 0, 0))
    corners = itertools.product(range(0, rows, side), range(0, columns, side))
    return [picture, *(whole.crop((x, y, x + side, y + side)) for y, x in corners)]


def num_tokens(size: Size, side: int, patches: int, grids: Sequence[Size], max_squares: int) -> int:
    """Tokens of a picture that is cut: those of the whole, and rows that end in a newline.

    Args:
        size: of the picture.
        side: of a square, in pixels.
        patches: likewise, in tokens.
        grids: as for `cut`.
        max_squares: more tokens than those of so many squares are shrunk to as many.
    """
    width, height = size
    grid = select_best_resolution((height, width), grids)
    rows, columns = (length // side * patches for length in grid)
    # As many rows or columns are left out before as behind.
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    ratio = math.sqrt(rows * columns / (max_squares * patches**2))
    if ratio > 1.1:
        rows, columns = int(rows // ratio), int(columns // ratio)
    return patches**2 + rows * (columns + 1)


def on_a_square(picture: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The picture in the middle of a square of the mean colour (on the scale 0 to 1)."""
    side = max(picture.size)
    return _in_the_middle(picture, (side, side), tuple(int(255 * channel) for channel in mean))


def _in_the_middle(picture: Image.Image, size: Size, color: tuple[int, ...]) -> Image.Image:
    canvas = Image.new("RGB", size, color)
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return canvas
