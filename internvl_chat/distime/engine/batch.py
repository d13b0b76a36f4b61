"""Rows of many videos decoded together: each enters when there is room and leaves when it ends.

The next token of every row is chosen in one pass of the language model, whatever the rows are
about. What a row answers does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distime.engine.decoding import Decoding, choose, logits_of, says_again
from distime.engine.slots import Slots
from distime.model.generation import SharedPrefix
from distime.model.library import CACHE
from distime.model.packing import attention_mask_of

RESERVE = 64
"""Columns that a row is given beyond its tokens, and by which the buffers grow."""


@dataclass(eq=False)
class Row:
    """One answer in the making.

    Attributes:
        tag: whose it is; the batch does not look at it.
        suffix: ids behind the prefix.
        decoding: how it is decoded.
        generator: of its draws, None where the likeliest token is taken.
        given: normalised `(n, 2)` of the `<TIME_STAMP>` tokens of the suffix; where None, they keep
            their own embedding.
        length: tokens whose keys and values are kept.
        position: of the next token.
        ids: generated so far, the last one not yet fed.
        intervals: normalised `(2,)` of each `<TIME_STAMP>` among them.
        distributions: `(2, reg_max + 1)` of each, if the time head has any.
        ran_away: it was ended since it repeated itself.
    """

    tag: Any
    suffix: Sequence[int]
    decoding: Decoding
    generator: torch.Generator | None = None
    given: Tensor | None = None
    length: int = 0
    position: int = 0
    ids: list[int] = field(default_factory=list)
    intervals: list[Tensor] = field(default_factory=list)
    distributions: list[Tensor] = field(default_factory=list)
    ran_away: bool = False


class Batch:
    """Rows that are decoded together.

    Args:
        model: a DisTime model in evaluation mode.
        end_id: the token that ends an answer.
        max_rows: most rows at once.
        max_tokens: most tokens that there are keys and values for, rows x columns. A row that
            needs more all by itself is still decoded.
    """

    def __init__(self, model: torch.nn.Module, *, end_id: int, max_rows: int, max_tokens: int):
        self.model, self.end_id = model, end_id
        self.max_rows, self.max_tokens = max_rows, max_tokens
        self.rows: list[Row] = []
        self.slots: Slots | None = None
        self.hidden: Tensor | None = None  # of the position that every row's next token follows

    def forget(self) -> None:
        """Give the buffers back; those of the next rows do not depend on what was decoded before.

        Only without rows.
        """
        if not self.rows:
            self.slots = None

    # ------------------------------------------------------------------ entering

    def room(self, prefix_length: int, suffixes: Sequence[Sequence[int]]) -> int:
        """Return how many rows with these suffixes behind such a prefix can enter now."""
        count, longest = 0, max((row.length for row in self.rows), default=0)
        for suffix in suffixes:
            longest = max(longest, prefix_length + len(suffix))
            rows = len(self.rows) + count + 1
            # The prefix itself is kept beside its rows while they enter.
            fits = rows * (longest + RESERVE) + prefix_length <= self.max_tokens
            if rows > self.max_rows or not (fits or rows == 1):
                break
            count += 1
        return count

    @torch.no_grad()
    def enter(self, prefix: SharedPrefix, rows: Sequence[Row]) -> None:
        """Let rows with a common prefix in; all must fit, see `room`."""
        if self.slots is None:
            self.slots = Slots(prefix.cache)
        first, last = len(self.rows), len(self.rows) + len(rows)
        self._make_room(last, prefix.length + max(len(row.suffix) for row in rows))
        self.slots.copy_prefix(prefix.cache, first, last)
        for some in _packs(rows, prefix.length):
            hidden = self._read_suffixes(prefix, some)
            self.hidden = torch.cat([self.hidden, hidden]) if self.rows else hidden
            self.rows += some

    def _read_suffixes(self, prefix: SharedPrefix, rows: Sequence[Row]) -> Tensor:
        """Run the suffixes of the next rows behind one another in one row, each seeing the prefix
        and itself: without padding, and without a copy of the prefix for each head of each row.

        Returns:
            the hidden states `(len(rows), C)` of their last tokens.
        """
        device, start = self.model.device, prefix.length
        lengths = [len(row.suffix) for row in rows]
        for row, length in zip(rows, lengths, strict=True):
            row.length, row.position = start + length, prefix.next_position + length
        owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
        within = torch.cat([torch.arange(length) for length in lengths])
        visible = torch.ones(len(owner), start + len(owner), dtype=torch.bool)
        visible[:, start:] = (owner == owner.unsqueeze(-1)).tril()
        self.slots.append(len(self.rows), start, lengths)
        output = self._run(
            torch.tensor([[token for row in rows for token in row.suffix]], device=device),
            visible.to(device)[None, None],
            (prefix.next_position + within).to(device).unsqueeze(0),
            time_targets=self._given_times(rows),
        )
        ends = torch.tensor(lengths).cumsum(0) - 1
        return output.last_hidden_state[0, ends.to(device)]

    # ------------------------------------------------------------------ one step

    @torch.no_grad()
    def choose(self) -> list[Row]:
        """Give every row its next token, and the time where it is `<TIME_STAMP>`; the ended rows.

        To be followed by `leave` with the rows that end, then `feed`.
        """
        tokens = choose(
            logits_of(self.model.lm_head, self.hidden),
            [row.decoding for row in self.rows],
            [row.generator for row in self.rows],
            [len(row.ids) for row in self.rows],
            self.end_id,
        )
        time_id = self.model.config.time_token_id
        timed = [i for i, token in enumerate(tokens) if token == time_id]
        if timed and not self.model.time_head.in_words:
            logits = self.model.time_decoder(self.hidden[timed])
            times = self.model.time_head.decode(logits)
            distributions = self.model.time_head.distribution(logits)
            for place, i in enumerate(timed):
                row, interval = self.rows[i], times[place]
                if row.decoding.sample_times:
                    scaled = logits[place : place + 1] / row.decoding.temperature
                    interval = self.model.time_head.sample(scaled, row.generator)[0]
                row.intervals.append(interval)
                if distributions is not None:
                    row.distributions.append(distributions[place])
        for row, token in zip(self.rows, tokens, strict=True):
            row.ids.append(token)
        return [row for row in self.rows if self._has_ended(row)]

    def leave(self, rows: Sequence[Row]) -> None:
        """Take rows out; the last ones move into their places."""
        for row in rows:
            index = self.rows.index(row)
            last = self.rows.pop()
            if last is not row:
                self.rows[index] = last
                self.slots.move(len(self.rows), index, last.length)

    @torch.no_grad()
    def feed(self) -> list[Row]:
        """Run the language model over the latest token of every row.

        Returns:
            rows that had to leave, since the answers have grown over `max_tokens`: those that
            entered last. They can enter again from the start.
        """
        put_back = []
        width = max((row.length for row in self.rows), default=0) + 1
        while len(self.rows) > 1 and len(self.rows) * width > self.max_tokens:
            put_back.append(self.rows[-1])
            self.leave(self.rows[-1:])
            width = max(row.length for row in self.rows) + 1
        if not self.rows:
            return put_back
        self._make_room(len(self.rows), width)
        device, time_id = self.model.device, self.model.config.time_token_id
        timed = []
        if self.model.config.reencode_times and not self.model.time_head.in_words:
            timed = [i for i, row in enumerate(self.rows) if row.ids[-1] == time_id]
        # All that the device must be told of this step, in one transfer.
        told = [[row.ids[-1], row.length, row.position] for row in self.rows]
        ids, lengths, positions = torch.tensor(told).to(device, non_blocking=True).unbind(-1)
        self.slots.step(lengths, width)
        output = self._run(
            ids.unsqueeze(-1),
            (torch.arange(width, device=device) <= lengths.unsqueeze(-1))[:, None, None],
            positions.unsqueeze(-1),
            time_targets=torch.stack([self.rows[i].intervals[-1] for i in timed])
            if timed
            else None,
            # Known here; the model would have to look for them, and wait.
            token_index={"events": torch.tensor(timed, dtype=torch.long, device=device)},
        )
        self.hidden = output.last_hidden_state[:, -1]
        for row in self.rows:
            row.length, row.position = row.length + 1, row.position + 1
        return put_back

    # ------------------------------------------------------------------ inside

    def _given_times(self, rows: Sequence[Row]) -> Tensor | None:
        """Intervals `(n, 2)` of the `<TIME_STAMP>` tokens of suffixes, NaN where none is given."""
        if all(row.given is None for row in rows):
            return None
        time_id = self.model.config.time_token_id
        unknown = [torch.full((list(row.suffix).count(time_id), 2), torch.nan) for row in rows]
        times = [
            nothing if row.given is None else row.given
            for row, nothing in zip(rows, unknown, strict=True)
        ]
        return torch.cat(times).to(self.model.device)

    def _run(self, ids: Tensor, visible: Tensor, position_ids: Tensor, **options: Any) -> Any:
        config = self.model.config.get_text_config()
        if self.model.position_rows > 1:
            position_ids = position_ids.expand(self.model.position_rows, -1, -1)
        return self.model(
            input_ids=ids,
            attention_mask=attention_mask_of(config, visible, self.model.dtype),
            position_ids=position_ids,
            use_cache=True,
            logits_to_keep=slice(0),  # made by `choose`, of all rows at once
            **{CACHE: self.slots},
            **options,
        )

    def _has_ended(self, row: Row) -> bool:
        ends = row.ids[-1] == self.end_id or row.ids[-1] in row.decoding.stop_ids
        if ends or len(row.ids) >= row.decoding.max_new_tokens:
            return True
        repeats = row.decoding.max_repeats
        row.ran_away = repeats > 0 and says_again(row.ids, repeats)
        return row.ran_away

    def _make_room(self, rows: int, width: int) -> None:
        """Grow the buffers where they are too small, to what is needed and a reserve."""
        has_rows, has_width = self.slots.shape
        if rows <= has_rows and width <= has_width:
            return
        used = max((row.length for row in self.rows), default=0)
        width = max(width, used) + RESERVE
        rows = max(rows, min(self.max_rows, self.max_tokens // width))
        self.slots.resize(rows, width, len(self.rows), min(used, has_width))


def _packs(rows: Sequence[Row], tokens: int) -> Iterator[Sequence[Row]]:
    """Cut rows so that the suffixes of each pack have at most so many tokens, or it is one row.

    Suffixes do not see each other, but their pairs are computed: so no more than those with the
    prefix.
    """
    first = 0
    while first < len(rows):
        last, length = first + 1, len(rows[first].suffix)
        while last < len(rows) and length + len(rows[last].suffix) <= tokens:
            length += len(rows[last].suffix)
            last += 1
        yield rows[first:last]
        first = last
