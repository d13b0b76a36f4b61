"""Which groups a run trains on, in which order and in which rows: all decided before it starts.

A plan covers all epochs and all ranks. Every rank makes the same plan from the same seed, and step
`s` takes the same rows from it however many processes share them: that is what lets a run resume on
another number of processes without losing or repeating a sample.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from distime.data.dataset import SampleGroup, TrainingData

Key = tuple[int, int]  # (group, epoch)


@dataclass(frozen=True)
class PlanSettings:
    """How groups are ordered and packed.

    Attributes:
        epochs: passes over the data; a fraction takes the first part of the last pass.
        seed: of the order.
        group_by_length: bring groups of like length together, so that less is padded.
        packed_length: tokens of a row into which several groups are packed; None packs nothing.
        window: how many consecutive groups of the shuffled order may change places.
        rows_per_step: rows that one optimizer step takes over all ranks.
    """

    epochs: float = 1
    seed: int = 42
    group_by_length: bool = False
    packed_length: int | None = None
    window: int = 1024
    rows_per_step: int = 1


def make_plan(
    num_groups: int, settings: PlanSettings, lengths: Sequence[int] | None = None
) -> list[list[Key]]:
    """Return the rows of a run, each a list of (group, epoch).

    Args:
        num_groups: groups of the data set.
        settings: see `PlanSettings`.
        lengths: tokens of every group, needed to group by length and to pack.

    Raises:
        ValueError: lengths are needed and missing.
    """
    needs_lengths = settings.group_by_length or settings.packed_length is not None
    if needs_lengths and lengths is None:
        raise ValueError("lengths are needed to group by length and to pack")
    order: list[Key] = []
    epoch = 0
    while len(order) < round(num_groups * settings.epochs):
        groups = list(range(num_groups))
        random.Random(f"{settings.seed} {epoch}").shuffle(groups)
        order += [(group, epoch) for group in groups]
        epoch += 1
    order = order[: round(num_groups * settings.epochs)]
    if not needs_lengths:
        return [[key] for key in order]
    rows: list[list[Key]] = []
    for start in range(0, len(order), settings.window):
        window = sorted(order[start : start + settings.window], key=lambda key: -lengths[key[0]])
        shuffle = random.Random(f"{settings.seed} rows {start}").shuffle
        # Sorting must not order the run itself by length, so what stays together is shuffled again:
        # rows, once packed; else the steps of rows of like length.
        if settings.packed_length is not None:
            packed = list(_first_fit(window, lengths, settings.packed_length))
            shuffle(packed)
            rows += packed
        else:
            size = settings.rows_per_step
            steps = [window[i : i + size] for i in range(0, len(window), size)]
            shuffle(steps)
            rows += [[key] for step in steps for key in step]
    return rows


def repeat_steps(plan: list[list[Key]], rows_per_step: int, times: int) -> list[list[Key]]:
    """Let each step's rows be those of `times` steps, one after the other."""
    steps = [plan[i : i + rows_per_step] for i in range(0, len(plan), rows_per_step)]
    return [row for step in steps for _ in range(times) for row in step]


def _first_fit(keys: Sequence[Key], lengths: Sequence[int], capacity: int) -> Iterator[list[Key]]:
    """Pack keys, longest first, each into the first row with room for it."""
    rows: list[list[Key]] = []
    room: list[int] = []
    for key in keys:
        length = lengths[key[0]]
        row = next((i for i, left in enumerate(room) if left >= length), None)
        if row is None:
            rows.append([])
            room.append(capacity)
            row = len(rows) - 1
        rows[row].append(key)
        room[row] -= length
    yield from rows


class PlannedRows(Dataset):
    """The rows of a plan, prepared on demand.

    Args:
        data: where groups come from.
        plan: from `make_plan`.
        repeats: how often the rows of each step follow one another in it, see `repeat_steps`.
    """

    def __init__(self, data: TrainingData, plan: Sequence[Sequence[Key]], repeats: int = 1):
        self.data, self.plan, self.repeats = data, plan, repeats

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, row: int) -> list[SampleGroup]:
        """Return the groups of a row."""
        return [self.data[key] for key in self.plan[row]]

    def samples_until(self, row: int) -> str:
        """Hash which samples the rows before `row` hold, in their order."""
        digest = hashlib.sha256()
        for keys in self.plan[:row]:
            for group, epoch in keys:
                source, items = self.data.groups[group]
                digest.update(f"{self.data.sources[source].name} {items} {epoch},".encode())
            digest.update(b";")
        return f"{min(row, len(self))} rows {digest.hexdigest()}"
