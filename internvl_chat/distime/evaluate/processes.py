"""The processes of one run: who takes which video, and how much all have done.

They share no tensors, so that a CPU protocol (gloo) serves GPUs as well. Under torchrun the
environment says who is who; without it there is one process.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous


class Processes:
    """One process that is alone.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        local_rank: number of this process on its machine.
    """

    rank, count, local_rank = 0, 1, 0

    def __init__(self):
        self._next = itertools.count()
        self._answered = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def take(self) -> int:
        """Return the next number from 0; no other process gets the same."""
        return next(self._next)

    def add_answered(self, number: int) -> int:
        """Add to the answers of all processes; return how many there are."""
        self._answered += number
        return self._answered

    def share(self, value: Any) -> Any:
        """Return the first process's value in every process."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank. Waits until all have come here."""
        return [value]


class TorchrunProcesses(Processes):
    """Several processes, started by torchrun.

    Work is handed out one video at a time, so that no process waits for one that drew longer
    videos; each video's answers do not depend on who gives them.
    """

    def __init__(self):
        super().__init__()
        store, self.rank, self.count = next(rendezvous("env://"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        # Runs of the same processes one after another must not see each other's counts. All have
        # joined a run before the first of them leaves it.
        run = (store.add("distime/joined", 1) - 1) // self.count
        self._store = dist.PrefixStore(f"distime/{run}", store)
        # A process that finishes early waits for the longest video of another.
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore("group", self._store),
            rank=self.rank,
            world_size=self.count,
            timeout=timedelta(days=30),
        )

    def take(self) -> int:
        """See `Processes.take`."""
        return self._store.add("taken", 1) - 1

    def add_answered(self, number: int) -> int:
        """See `Processes.add_answered`."""
        return self._store.add("answered", number)

    def share(self, value: Any) -> Any:
        """See `Processes.share`."""
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """See `Processes.gather`."""
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    processes = TorchrunProcesses()
    try:
        yield processes
    finally:
        dist.destroy_process_group()
