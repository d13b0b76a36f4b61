"""What loading costs a training step: waiting in the real trainer, and the way of the pixels.

    python benchmarks/loader.py

waiting  the real trainer on a tiny model, steps of --batches micro-batches. Every sample takes
         --fetch seconds to load, and every micro-batch --compute seconds more than it does (both
         sleep, so that the two cores here can stand for a GPU and its workers). Printed is the
         share of the time from the second step on that the trainer waits for data, with as many
         batches ready for each worker as is the default here, and with PyTorch's two. Where the
         workers together are slower than the model, no arrangement helps: then more are needed.
pixels   samples of --frames frames of --size pixels, from decoded frames through a worker's process
         to tensors of one batch here: as uint8, and as normalised float32, as before. CPU seconds
         of both processes. Then what normalising them costs, which a GPU does in no time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from distime.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, frames_to_pixels
from distime.data.dataset import TrainingData
from distime.model.raw_pixels import normalise
from distime.toy.tiny import write_tiny_checkpoint
from distime.train import finetune
from distime.train.trainer import DisTimeTrainer

# ---------------------------------------------------------------------- waiting


def write_texts(folder: Path, count: int) -> None:
    """Items of text alone: what a sample takes to load is then --fetch."""
    turns = [{"from": "human", "value": "what is seen?"}, {"from": "gpt", "value": "no."}]
    line = json.dumps({"conversations": turns}) + "\n"
    (folder / "train.jsonl").write_text(line * count)
    (folder / "meta.json").write_text(
        json.dumps({"texts": {"root": ".", "annotation": "train.jsonl"}})
    )


@contextmanager
def slowed(fetch: float, compute: float) -> Iterator[list[tuple[float, float]]]:
    """Slow data set and model down; collect when each step began and how long it waited."""
    get, step, batches = (
        TrainingData.__getitem__, DisTimeTrainer.training_step, DisTimeTrainer.get_batch_samples,
    )  # fmt: skip
    steps: list[tuple[float, float]] = []

    def slow_get(self, key):
        time.sleep(fetch)
        return get(self, key)

    def slow_step(self, *args, **kwargs):
        time.sleep(compute)
        return step(self, *args, **kwargs)

    def timed_batches(self, *args, **kwargs):
        began, before = time.perf_counter(), self._seconds_waited
        result = batches(self, *args, **kwargs)
        # What was logged in between set the trainer's own count back to 0.
        steps.append((began, self._seconds_waited - before))
        return result

    with (
        mock.patch.object(TrainingData, "__getitem__", slow_get),
        mock.patch.object(DisTimeTrainer, "training_step", slow_step),
        mock.patch.object(DisTimeTrainer, "get_batch_samples", timed_batches),
    ):
        yield steps


def waiting(args: argparse.Namespace, folder: Path, ready: int | None) -> tuple[float, float]:
    """Seconds of a step, and of them waited for data, without the first step."""
    flags = {
        "--model_name_or_path": folder / "tiny", "--meta_path": folder / "meta.json",
        "--output_dir": folder / f"out-{ready}", "--use_cpu": True, "--report_to": "none",
        "--save_strategy": "no", "--max_steps": args.steps, "--disable_tqdm": True,
        "--gradient_accumulation_steps": args.batches, "--per_device_train_batch_size": 1,
        "--dataloader_num_workers": args.workers, "--logging_steps": args.steps,
        "--learning_rate": 1e-3,
    }  # fmt: skip
    if ready:
        flags["--dataloader_prefetch_factor"] = ready
    with slowed(args.fetch, args.compute) as steps:
        assert finetune.main([str(word) for pair in flags.items() for word in pair]) == 0
        # The last step is followed by what ends the run.
    (first, _), *_, (last, _) = steps[1:]
    return (last - first) / (len(steps) - 2), sum(w for _, w in steps[1:-1]) / (len(steps) - 2)


# ---------------------------------------------------------------------- pixels


class Frames(Dataset):
    """Samples whose frames are decoded already."""

    def __init__(self, count: int, frames: int, size: int, raw: bool):
        self.count, self.size, self.raw = count, size, raw
        random = np.random.default_rng(0)
        self.frames = random.integers(0, 256, (frames, size, size, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return frames_to_pixels(self.frames, self.size, raw=self.raw)


def cpu_seconds() -> float:
    """Of this process and the children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def travel(data: Frames) -> tuple[float, float, int]:
    """CPU and wall seconds a sample, and its bytes, from a worker's process to a batch here."""
    began, wall = cpu_seconds(), time.perf_counter()
    for batch in DataLoader(data, batch_size=1, num_workers=1, collate_fn=torch.cat):
        nbytes = batch.contiguous().nbytes
    wall = time.perf_counter() - wall
    return (cpu_seconds() - began) / len(data), wall / len(data), nbytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fetch", type=float, default=0.3, help="seconds to load a sample")
    parser.add_argument("--compute", type=float, default=0.09, help="seconds of a micro-batch")
    parser.add_argument("--batches", type=int, default=16, help="micro-batches of a step")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--samples", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_checkpoint(folder / "tiny", ["what", "is", "seen", "no"], hidden_size=32)
        write_texts(folder, args.steps * args.batches)
        print(f"steps of {args.batches} batches, {args.workers} workers of {args.fetch} s a sample")
        for ready in (None, 2):
            step, waited = waiting(args, folder, ready)
            print(
                f"{f'{ready} a worker ready' if ready else 'a whole step ready':<20}"
                f"{step:.2f} s a step, {waited:.3f} of it waiting: {waited / step:.1%}"
            )
    raw, floats = (Frames(args.samples, args.frames, args.size, raw) for raw in (True, False))
    travel(raw)
    (cpu, wall, size), (cpu_before, wall_before, size_before) = travel(raw), travel(floats)
    pixels = raw[0]
    began = time.process_time()
    for _ in range(5):
        normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
    normalising = (time.process_time() - began) / 5
    print(f"pixels of {args.frames} frames of {args.size} px, from a worker to a batch here")
    print(
        f"{'float32':<10}{size_before / 1e6:>6.1f} MB{cpu_before:>8.3f} CPU s{wall_before:>8.3f} s"
    )
    print(f"{'uint8':<10}{size / 1e6:>6.1f} MB{cpu:>8.3f} CPU s{wall:>8.3f} s")
    print(
        f"ratio     {size_before / size:>6.1f}   {cpu_before / cpu:>8.1f}      "
        f"{wall_before / wall:>8.1f}     (and {normalising:.3f} CPU s to normalise, on the device)"
    )


if __name__ == "__main__":
    main()
