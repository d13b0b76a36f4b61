"""Several fine-tunings, one after the other, in the same connected processes.

torchrun --standalone --nproc_per_node 2 distributed_worker.py JOBS.json

Starting processes takes far longer than a few steps of a tiny model. JOBS.json is a list of jobs:
`name`, `argv` of `distime.train.finetune`, and optionally `copy`, a pair of folders copied first.
Each process writes what it saw to JOBS.rank.json, by the name of the job.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState

from distime.train import finetune
from distime.train.trainer import DisTimeTrainer


class RecordingTrainer(DisTimeTrainer):
    """Notes what is logged and what every micro-batch is made of."""

    seen: dict[str, list] = {}

    def log(self, logs, *args, **kwargs):
        super().log(logs, *args, **kwargs)
        self.seen["logs"].append(dict(logs))
        groups = self.optimizer.param_groups
        self.seen["settings"] = [(group["weight_decay"], group["betas"][0]) for group in groups]

    def compute_loss(self, model, inputs, *args, **kwargs):
        times = inputs.get("frame_times")
        self.seen["times"].append(None if times is None else str(times.dtype))
        return super().compute_loss(model, inputs, *args, **kwargs)


class Errors(logging.Handler):
    """Notes what is logged as an error."""

    def emit(self, record):
        RecordingTrainer.seen["errors"].append(record.getMessage())


def run(job: dict) -> dict:
    """Run one job and return what was seen."""
    RecordingTrainer.seen = seen = {"logs": [], "times": [], "errors": [], "settings": []}
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return seen | {"exit": finetune.main(job["argv"])}


def main(jobs_file: Path) -> None:
    """Run all jobs."""
    finetune.DisTimeTrainer = RecordingTrainer
    finetune.logger.addHandler(Errors(logging.ERROR))
    results = {}
    for job in json.loads(jobs_file.read_text()):
        if job.get("copy") and os.environ["RANK"] == "0":
            shutil.copytree(*job["copy"])
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        results[job["name"]] = run(job)
    rank = os.environ["RANK"]
    jobs_file.with_suffix(f".{rank}.json").write_text(json.dumps(results))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
