"""Keys and values of rows that are decoded together, each at a place of its own.

One buffer per layer, `(rows, heads, width, head size)`. A row's tokens lie from the left without
gaps; what lies behind them is masked. So a step writes one column per row and copies nothing,
whereas a cache that grows by concatenation is copied whole at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer


@dataclass
class _Window:
    """Where the model's next pass writes and reads.

    Attributes:
        first: first row.
        rows: `(rows,)`, their numbers from `first`; one token of each is written.
        starts: `(rows,)`, the column of that token.
        lengths: instead of these, how many tokens of each row are written; they come behind one
            another in one row, and all begin at column `start`.
        start: see `lengths`.
        width: columns that are read.
    """

    first: int = 0
    rows: Tensor | None = None
    starts: Tensor | None = None
    lengths: Sequence[int] | None = None
    start: int = 0
    width: int = 0

    def put(self, buffer: Tensor, new: Tensor) -> Tensor:
        """Write `new` `(rows, heads, tokens, size)`; return what they are to see."""
        if self.lengths is None:
            rows = buffer[self.first : self.first + len(self.rows)]
            rows[self.rows, :, self.starts] = new[:, :, 0]
            return rows[:, :, : self.width]
        for row, part in enumerate(new[0].split(self.lengths, dim=1), start=self.first):
            buffer[row, :, self.start : self.start + part.shape[1]] = part
        before = buffer[self.first : self.first + 1, :, : self.start]
        return torch.cat([before, new], dim=2)


class _SlotLayer(CacheLayerMixin):
    """One layer's buffers. Zeros where nothing was written: what is masked still is multiplied."""

    is_sliding = False

    def __init__(self, like: DynamicLayer, window: _Window):
        super().__init__()
        self.window = window
        heads, size = like.keys.shape[1], like.keys.shape[3]
        self.keys = like.keys.new_zeros(0, heads, 0, size)
        self.values = like.values.new_zeros(0, heads, 0, like.values.shape[3])
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the buffers exist from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values; return those of the rows that are at work."""
        return (
            self.window.put(self.keys, key_states),
            self.window.put(self.values, value_states),
        )

    def resize(self, rows: int, width: int, used_rows: int, used_width: int) -> None:
        """Make the buffers `rows` x `width` and keep what is used of the old ones."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(rows, old.shape[1], width, old.shape[3])
            new[:used_rows, :, :used_width] = old[:used_rows, :, :used_width]
            setattr(self, name, new)

    def get_seq_length(self) -> int:
        """Columns that are read now."""
        return self.window.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that are read now, from the first one."""
        return self.window.width, 0

    def get_max_length(self) -> int:
        """No bound of its own."""
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.24


class Slots(Cache):
    """The buffers of all layers.

    Args:
        like: a prefix's cache, whose layers say how many heads of what size there are.
    """

    def __init__(self, like: Cache):
        self.window = _Window()
        super().__init__(layers=[_SlotLayer(layer, self.window) for layer in like.layers])

    @staticmethod
    def can_hold(cache: Cache) -> bool:
        """Whether the rows of such a cache can be laid side by side: full attention throughout."""
        return all(type(layer) is DynamicLayer for layer in cache.layers)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that there is memory for."""
        keys = self.layers[0].keys
        return keys.shape[0], keys.shape[2]

    def resize(self, rows: int, width: int, used_rows: int, used_width: int) -> None:
        """Make room for `rows` x `width` tokens; see `_SlotLayer.resize`."""
        for layer in self.layers:
            layer.resize(rows, width, used_rows, used_width)

    def copy_prefix(self, prefix: Cache, first: int, last: int) -> None:
        """Begin rows with a prefix's keys and values, and forget what they held behind it."""
        for layer, source in zip(self.layers, prefix.layers, strict=True):
            for buffer, part in ((layer.keys, source.keys), (layer.values, source.values)):
                length = part.shape[2]
                buffer[first:last, :, :length] = part
                buffer[first:last, :, length:] = 0

    def move(self, source: int, target: int, length: int) -> None:
        """Put a row's first `length` tokens in another row's place."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                buffer[target, :, :length] = buffer[source, :, :length]
                buffer[target, :, length:] = 0

    def step(self, starts: Tensor, width: int) -> None:
        """The next pass writes one token of each row from the first one on, and reads the rows.

        Args:
            starts: `(rows,)`, its column.
            width: columns that are read.
        """
        self.window.first, self.window.lengths = 0, None
        self.window.starts, self.window.width = starts, width
        self.window.rows = torch.arange(len(starts), device=starts.device)

    def append(self, first: int, start: int, lengths: Sequence[int]) -> None:
        """The next pass writes tokens of several rows, which it has behind one another in one row.

        It reads what the first of them holds, which is what all do, and the new tokens.

        Args:
            first: the first of the rows.
            start: column of the first new token in each.
            lengths: of each, how many.
        """
        self.window.first, self.window.lengths = first, list(lengths)
        self.window.start, self.window.width = start, start + sum(lengths)
