"""Rows of sample groups -> the tensors of one training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from distime.data.dataset import SampleGroup
from distime.model.packing import PADDING, SHARED
from distime.model.seam import next_position
from distime.model.token_index import TokenIndex
from distime.processing.prompt import IGNORE_INDEX
from distime.processing.tokenizer import TokenIds

FOR_TRAINER = (
    "num_samples",
    "places",
    "durations",
    "problems",
    "warnings",
    "num_clamped",
    "num_cut",
    "num_lost",
    "num_warned",
    "objective",
    "num_padding",
    "token_index",
    "row_bounds",
    "attention_blocks",
)
"""What a batch holds beside the arguments of the model's `forward`; `durations` are each sample's,
in seconds, and `objective` is what the run's objective has put there for itself.

`token_index`, `row_bounds` and `attention_blocks` are for `forward` as well, but only say where in
these very rows something lies: whoever changes the rows must leave them out.
"""


def bookkeeping(groups: Sequence[SampleGroup]) -> dict[str, Any]:
    """What the trainer counts and names of the groups of a batch."""
    return {
        "num_samples": sum(len(group.items) for group in groups),
        "places": [place for group in groups for place in group.places],
        "durations": [group.duration for group in groups for _ in group.items],
        "problems": [problem for group in groups for problem in group.problems],
        "warnings": [warning for group in groups for warning in group.warnings],
        "num_lost": sum(group.num_lost for group in groups),
        "num_clamped": sum(group.num_clamped for group in groups),
        "num_warned": sum(group.num_warned for group in groups),
        "num_cut": sum(item.is_truncated for group in groups for item in group.items),
    }


_TOKENS_OF_A_PIECE = 256


@dataclass
class _Row:
    """One row under construction; see `distime.model.packing` for groups and samples."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    position_ids: list[Tensor] = field(default_factory=list)
    group_ids: list[int] = field(default_factory=list)
    sample_ids: list[int] = field(default_factory=list)

    def append(
        self,
        ids: Sequence[int],
        labels: Sequence[int],
        positions: Tensor,
        group: int,
        sample: int,
    ) -> None:
        self.input_ids += ids
        self.labels += labels
        self.position_ids.append(positions)
        self.group_ids += [group] * len(ids)
        self.sample_ids += [sample] * len(ids)


class Collator:
    """Lay rows side by side, padded on the right.

    Rows of one sample each become an ordinary padded batch with an attention mask. As soon as a row
    holds several samples, the batch says which token belongs to which group and sample.

    Args:
        pad_token_id: fills up short rows.
        positions: ids of a sequence and its `image_grid_thw` -> positions `(D, T)` where tokens
            have D coordinates (`DisTimeProcessor.positions`); None where they have one.
        token_ids: of the processor; with them a batch says where its special tokens lie.
    """

    def __init__(
        self,
        pad_token_id: int,
        positions: Callable[[Sequence[int], Tensor | None], Tensor | None] | None = None,
        token_ids: TokenIds | None = None,
    ):
        self.pad_token_id = pad_token_id
        self.positions = positions
        self.token_ids = token_ids

    def __call__(self, rows: Sequence[Sequence[SampleGroup]]) -> dict[str, Any]:
        """Collate rows of groups.

        Returns:
            the arguments of the model's `forward` (`input_ids`, `labels`, `pixel_values`, ...), and
            `FOR_TRAINER`: of these, `token_index` (see `TokenIndex`) only where the collator knows
            the tokens, `row_bounds` (see `_row_bounds`) only where no frames are shared, and
            `attention_blocks` (see `_blocks`) only where rows hold several samples.
        """
        laid, sample, group_number = [], 0, 0
        for groups in rows:
            row = _Row()
            for group in groups:
                prefix = group.prefix_ids
                ignored = [IGNORE_INDEX] * len(prefix)
                shared = self._positions(prefix, group.image_grid_thw)
                row.append(prefix, ignored, shared, group_number, SHARED)
                for item in group.items:
                    ids = item.input_ids
                    if prefix:  # it has all the media; what follows counts up from its end
                        start = next_position(shared)
                        own = start + torch.arange(len(ids)).expand(len(shared), -1)
                    else:
                        own = self._positions(ids, group.image_grid_thw)
                    row.append(ids, item.labels, own, group_number, sample)
                    sample += 1
                group_number += 1
            laid.append(row)
        flat = [group for groups in rows for group in groups]
        batch: dict[str, Any] = {
            "input_ids": self._stack([row.input_ids for row in laid], self.pad_token_id),
            "labels": self._stack([row.labels for row in laid], IGNORE_INDEX),
        }
        positions = self._stack_positions([torch.cat(row.position_ids, dim=-1) for row in laid])
        if len(positions) > 1 or sample > len(rows):
            batch["position_ids"] = positions if len(positions) > 1 else positions[0]
        if sample > len(rows):
            batch |= {
                "group_ids": self._stack([row.group_ids for row in laid], PADDING),
                "sample_ids": self._stack([row.sample_ids for row in laid], SHARED),
                "attention_blocks": [_blocks(groups) for groups in rows],
            }
        else:
            batch["attention_mask"] = self._stack([[1] * len(row.input_ids) for row in laid], 0)
        if not any(group.prefix_ids for groups in rows for group in groups):
            batch["row_bounds"] = _row_bounds(rows)
        if self.token_ids is not None:
            batch["token_index"] = self._token_index(batch)
        # An absent modality is None rather than empty: the model then knows that none was meant.
        pixels = torch.cat([group.pixel_values for group in flat])
        times = torch.cat([group.frame_times for group in flat])
        targets = torch.cat([target for group in flat for target in group.targets])
        grids = [group.image_grid_thw for group in flat if group.image_grid_thw is not None]
        if grids and len(grid := torch.cat(grids)):
            batch["image_grid_thw"] = grid
        for name, tensor in (
            ("pixel_values", pixels),
            ("frame_times", times),
            ("time_targets", targets),
        ):
            if len(tensor):
                batch[name] = tensor
        if flat[0].image_features is not None:
            # Even if there are none: they say that the vision tower is not to run.
            batch["image_features"] = torch.cat([group.image_features for group in flat])
        padding = batch["input_ids"].numel() - sum(len(row.input_ids) for row in laid)
        return batch | {"num_padding": padding} | bookkeeping(flat)

    def _token_index(self, batch: dict[str, Any]) -> dict[str, Any]:
        ids = batch["input_ids"]
        index = TokenIndex.of(
            ids,
            self.token_ids.time_stamp,
            self.token_ids.frame_time_ref,
            torch.isin(ids, torch.tensor(self.token_ids.placeholders)),
            batch["labels"],
            batch.get("sample_ids"),
        )
        return vars(index)  # as a dictionary it goes wherever the trainer sends a batch

    def _positions(self, ids: Sequence[int], grid: Tensor | None) -> Tensor:
        found = self.positions(ids, grid) if self.positions else None
        return torch.arange(len(ids)).unsqueeze(0) if found is None else found

    def _stack_positions(self, rows: Sequence[Tensor]) -> Tensor:
        """Positions `(D, T)` of each row -> `(D, B, longest)`."""
        longest = max(row.shape[-1] for row in rows)
        return torch.stack([pad(row, (0, longest - row.shape[-1])) for row in rows], dim=1)

    def _stack(self, rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([list(row) + [fill] * (longest - len(row)) for row in rows])


def _blocks(groups: Sequence[SampleGroup]) -> list[list[int]]:
    """Where groups lie in a row, see `bounds` of `distime.model.block_attention.make_blocks`.

    Samples behind shared frames are taken together until they have some tokens: products of
    matrices are slow where these are few.
    """
    blocks, position = [], 0
    for group in groups:
        block = [position, len(group.prefix_ids)]
        cut = position = position + len(group.prefix_ids)
        for item in group.items:
            position += len(item.input_ids)
            if position - cut >= _TOKENS_OF_A_PIECE:
                block.append(position)
                cut = position
        blocks.append(block if cut == position else [*block, position])
    return blocks


def _row_bounds(rows: Sequence[Sequence[SampleGroup]]) -> dict[str, Any]:
    """Where samples begin and end, as flash attention of transformers wants to be told.

    Left to find out by itself, it reads that from positions, in every layer, and waits for the
    device each time. All rows count as one; what fills up a row is a sequence of its own.

    Returns:
        `cu_seq_lens_q` and `cu_seq_lens_k`, int32 `(sequences + 1,)`, and `max_length_q` and
        `max_length_k`.
    """
    lengths = [[len(item.input_ids) for group in groups for item in group.items] for groups in rows]
    longest = max(map(sum, lengths))
    flat = [n for row in lengths for n in (*row, longest - sum(row)) if n]
    bounds = torch.tensor([0, *flat]).cumsum(0).to(torch.int32)
    return {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(flat),
        "max_length_k": max(flat),
    }
