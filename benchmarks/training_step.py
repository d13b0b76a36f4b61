"""CPU time and peak memory of a training step against the straightforward way.

    python benchmarks/training_step.py                  the sizes of ../shared/bench/config.json
    python benchmarks/training_step.py --config FILE    those of another published config.json

One sample of 1,404 tokens (16 frames, one event), forward and backward, recipe of the paper: LoRA
of rank 16, head and embeddings trained in full, all else frozen; same random weights, float32, one
thread. Each way runs in two processes of its own: one for time, and one of a single step for
memory, where freed memory returns to the system at once (MALLOC_MMAP_THRESHOLD_), so that the peak
is that of memory in use and not of what the allocator holds back. Compare the ratios: seconds
depend on the machine.

published: a re-enactment, on the same classes, of what the published implementation does: eager
attention, logits at every position, copied for the shift by one. The frozen vision tower keeps
nothing for the backward pass in either. The ways after it each add one thing, up to what training
does here. floor: the operations of our step (attention counted as if nothing were masked) at the
rate of a matrix product in the same run: what no arrangement of them could go below. It differs
between machines, and with it how far a ratio can go.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from distime import DisTimeForConditionalGeneration
from distime.model.losses import distance_iou_loss, distribution_focal_loss
from distime.model.time_modules import expected_time
from distime.train.arguments import ModelArguments
from distime.train.lora import select_trainable
from models import make_config, read_sizes

# attention, logits at every position
WAYS = {"published": ("eager", True), "+ SDPA": ("sdpa", True), "ours": ("sdpa", False)}
IMAGE, TIME, FRAME, IMG, IMG_END = 301, 302, 303, 304, 305
NUM_FRAMES, NUM_SUPERVISED = 16, 10


def make_batch(model: DisTimeForConditionalGeneration, tokens: int) -> dict[str, torch.Tensor]:
    """One sample: frames with their times, a question, an answer with one event."""
    random = torch.Generator().manual_seed(0)
    size, per_frame = model.config.vision_config.image_size[0], model.config.image_seq_length
    ids = []
    for _ in range(NUM_FRAMES):
        ids += [FRAME, 25, IMG, *[IMAGE] * per_frame, IMG_END, 198]
    text = torch.randint(10, 300, (tokens - len(ids),), generator=random).tolist()
    text[-NUM_SUPERVISED // 2] = TIME
    input_ids = torch.tensor([ids + text])
    labels = torch.full_like(input_ids, -100)
    labels[:, -NUM_SUPERVISED:] = input_ids[:, -NUM_SUPERVISED:]
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": labels,
        "pixel_values": torch.randn(NUM_FRAMES, 3, size, size, generator=random),
        "frame_times": (torch.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES,
        "time_targets": torch.tensor([[10.0, 23.5]]) / 64,
    }


def full_logits_loss(model: DisTimeForConditionalGeneration, batch: dict) -> torch.Tensor:
    """The losses from logits at every position, as a plain causal language model computes them."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    output = model(**inputs)
    shifted = output.logits.float()[:, :-1].contiguous()
    text = F.cross_entropy(shifted.flatten(0, 1), batch["labels"][:, 1:].flatten())
    hidden = output.last_hidden_state[:, :-1][batch["input_ids"][:, 1:] == TIME]
    decoded, targets = model.time_decoder(hidden), batch["time_targets"]
    distribution = distribution_focal_loss(decoded, targets).sum() / model.config.reg_max
    iou = distance_iou_loss(expected_time(decoded.softmax(-1)), targets).mean()
    return text + distribution + iou


def one_way(way: str, config: Path | None, tokens: int, steps: int) -> dict:
    """Run some steps; return the least CPU seconds, peak memory, loss and gradient norm."""
    torch.set_num_threads(1)
    attention, full_logits = WAYS[way]
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration(
        make_config(read_sizes(config), image_token=IMAGE, time_token=TIME, frame_token=FRAME)
    ).train()
    model.set_attn_implementation(attention)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text("{}")
        recipe = ModelArguments(
            folder, freeze_llm=True, freeze_mlp=True, freeze_backbone=True, use_llm_lora=16,
            lora_dropout=0.0,  # dropped activations would make the losses of the ways differ
        )  # fmt: skip
    select_trainable(model, recipe)
    batch = make_batch(model, tokens)
    seconds = []
    for _ in range(steps):
        model.zero_grad()
        start = time.process_time()
        loss = full_logits_loss(model, batch) if full_logits else model(**batch).loss
        loss.backward()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradients = [p.grad.norm() for p in model.parameters() if p.requires_grad]
    with FlopCounterMode(display=False) as counter:
        (full_logits_loss(model, batch) if full_logits else model(**batch).loss).backward()
    return {
        "cpu_seconds": min(seconds),
        "peak_mib": peak / 1024,
        "loss": loss.item(),
        "gradient_norm": torch.stack(gradients).norm().item(),
        "parameters": model.num_parameters(),
        "floor": counter.get_total_flops() / product_rate(),
    }


def product_rate() -> float:
    """Operations a CPU second of a large product of matrices in float32."""
    a = torch.randn(2048, 2048)
    a @ a
    start = time.process_time()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.process_time() - start)


def in_process(way: str, steps: int, environment: Mapping[str, str]) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--steps", str(steps)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=dict(environment)
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="published config.json, or its folder")
    parser.add_argument("--tokens", type=int, default=1404)
    parser.add_argument("--steps", type=int, default=3, help="steps of each way; the least counts")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(one_way(args.way, args.config, args.tokens, args.steps)))
        return
    returns_memory = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    results = {}
    for way in WAYS:
        timed = in_process(way, args.steps, os.environ)
        results[way] = timed | {"peak_mib": in_process(way, 1, returns_memory)["peak_mib"]}
    published = results["published"]
    print(f"{published['parameters']:,} parameters, {args.tokens} tokens, 1 thread")
    print(f"{'':<16}{'CPU s':>8}{'ratio':>8}{'peak MiB':>10}{'less':>7}{'loss':>10}{'|grad|':>10}")
    for way, result in results.items():
        ratio = published["cpu_seconds"] / result["cpu_seconds"]
        less = 1 - result["peak_mib"] / published["peak_mib"]
        print(
            f"{way:<16}{result['cpu_seconds']:>8.2f}{ratio:>8.1f}{result['peak_mib']:>10.0f}"
            f"{less:>7.0%}{result['loss']:>10.4f}{result['gradient_norm']:>10.4f}"
        )
        for value in ("loss", "gradient_norm"):
            error = abs(result[value] - published[value])
            assert error <= 1e-4 * abs(published[value]), f"{way}: {value} differs by {error}"
    ours = results["ours"]
    print(
        f"{'floor':<16}{ours['floor']:>8.2f}{published['cpu_seconds'] / ours['floor']:>8.1f}   "
        f"(ours is {ours['cpu_seconds'] / ours['floor']:.2f} of it)"
    )
    print("Losses and gradient norms agree to a relative 1e-4.")


if __name__ == "__main__":
    main()
