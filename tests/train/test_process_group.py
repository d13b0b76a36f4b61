"""Processes part in order when a run ends."""

from __future__ import annotations

import multiprocessing
import time

import torch.distributed as dist

from distime.train.distributed import leave_process_group


def _finish(rank: int, folder) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    if rank == 0:
        time.sleep(0.5)
        (folder / "result").touch()
    leave_process_group()
    assert not dist.is_initialized()
    assert (folder / "result").exists()


def test_no_process_leaves_before_the_result_is_written(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_finish, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)  # each imports torch and transformers first
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_single_process_has_no_group_to_leave():
    leave_process_group()
