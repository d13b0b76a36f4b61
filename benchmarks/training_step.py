"""CPU time and peak memory of a training step against the straightforward way, and the floor.

    python benchmarks/training_step.py                  the sizes of ../shared/bench/config.json
    python benchmarks/training_step.py --config FILE    those of another published config.json
    python benchmarks/training_step.py --questions 8    eight questions about one video
    python benchmarks/training_step.py --old CHECKOUT   also the same step of another checkout

One sample of 1,404 tokens (16 frames, one event), forward and backward, recipe of the paper: LoRA
of rank 16, head and embeddings trained in full, all else frozen; same random weights, float32, one
thread. Each way runs in two processes of its own: one for time, and one of a single step for
memory, where freed memory returns to the system at once (MALLOC_MMAP_THRESHOLD_), so that the peak
is that of memory in use and not of what the allocator holds back. Compare the ratios: seconds
depend on the machine.

published: a re-enactment, on the same classes, of what the published implementation does: eager
attention, logits at every position, copied for the shift by one, a pass for each question. The
frozen vision tower keeps nothing for the backward pass in either. The ways after it each add one
thing, up to what training does here: several questions lie behind one copy of their frames.
floor: the operations that our step needs (of attention, those between tokens that see each other)
at the rate of a matrix product in the same run: what no arrangement of them could go below. It
differs between machines, and with it how far a ratio can go.
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
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from distime import DisTimeForConditionalGeneration
from distime.data.collator import FOR_TRAINER, Collator
from distime.data.dataset import SampleGroup
from distime.model.losses import distance_iou_loss, distribution_focal_loss
from distime.model.time_modules import expected_time
from distime.processing.prompt import IGNORE_INDEX, Encoded
from distime.processing.tokenizer import TokenIds
from distime.train.arguments import ModelArguments
from distime.train.lora import select_trainable
from models import make_config, read_sizes

# attention, logits at every position
WAYS = {
    "published": ("eager", True), "+ SDPA": ("sdpa", True),
    "ours": ("sdpa", False), "old": ("sdpa", False),
}  # fmt: skip
IMAGE, TIME, FRAME, IMG, IMG_END = 301, 302, 303, 304, 305
IDS = TokenIds(TIME, FRAME, 306, 307, placeholders=(IMAGE,), pad=0)
NUM_FRAMES, NUM_SUPERVISED = 16, 10
INTERVAL = torch.tensor([[10.0, 23.5]]) / 64


def make_group(
    model: DisTimeForConditionalGeneration, tokens: int, questions: int, together: bool
) -> list[SampleGroup]:
    """Frames with their times, and questions, each with an answer with one event."""
    random = torch.Generator().manual_seed(0)
    size, per_frame = model.config.vision_config.image_size[0], model.config.image_seq_length
    prefix = [FRAME, 25, IMG, *[IMAGE] * per_frame, IMG_END, 198] * NUM_FRAMES
    pixels = torch.randn(NUM_FRAMES, 3, size, size, generator=random)
    times, groups = (torch.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES, []
    for _ in range(questions):
        own = torch.randint(10, 300, (tokens - len(prefix),), generator=random).tolist()
        own[-NUM_SUPERVISED // 2] = TIME
        before = [] if together else prefix
        labels = [IGNORE_INDEX] * (len(before) + len(own) - NUM_SUPERVISED) + own[-NUM_SUPERVISED:]
        item = Encoded(before + own, labels, num_time_stamps=1)
        groups.append(SampleGroup([], [item], [INTERVAL], pixels, times, ["-"]))
    if not together:
        return groups
    items = [item for group in groups for item in group.items]
    return [SampleGroup(prefix, items, [INTERVAL] * questions, pixels, times, ["-"] * questions)]


def our_loss(model: DisTimeForConditionalGeneration, batch: dict[str, Any]) -> torch.Tensor:
    """As the trainer of the checkout at hand runs a batch."""
    try:
        from distime.train.objectives.base import Objective
    except ImportError:  # an older one
        arguments = {name: value for name, value in batch.items() if name not in FOR_TRAINER}
        return model(**arguments, use_cache=False).loss
    return Objective.run(model, batch, None).loss


def our_batches(groups: list[SampleGroup]) -> list[dict[str, Any]]:
    """As the collator of the checkout at hand makes them."""
    try:
        collate = Collator(0, None, IDS)
    except TypeError:  # an older one
        collate = Collator(0)
    return [collate([[group]]) for group in groups]


def full_logits_loss(model: DisTimeForConditionalGeneration, batch: dict[str, Any]) -> torch.Tensor:
    """The losses from logits at every position, as a plain causal language model computes them."""
    inputs = {n: v for n, v in batch.items() if n not in (*FOR_TRAINER, "labels")}
    output = model(**inputs)
    shifted = output.logits.float()[:, :-1].contiguous()
    text = F.cross_entropy(shifted.flatten(0, 1), batch["labels"][:, 1:].flatten())
    hidden = output.last_hidden_state[:, :-1][batch["input_ids"][:, 1:] == TIME]
    decoded, targets = model.time_decoder(hidden), batch["time_targets"]
    distribution = distribution_focal_loss(decoded, targets).sum() / model.config.reg_max
    iou = distance_iou_loss(expected_time(decoded.softmax(-1)), targets).mean()
    return text + distribution + iou


def one_way(args: argparse.Namespace) -> dict:
    """Run some steps; return the least CPU seconds, peak memory, loss and gradient norm."""
    torch.set_num_threads(1)
    attention, full_logits = WAYS[args.way]
    torch.manual_seed(0)
    sizes = read_sizes(args.config)
    model = DisTimeForConditionalGeneration(
        make_config(sizes, image_token=IMAGE, time_token=TIME, frame_token=FRAME)
    ).train()
    model.set_attn_implementation(attention)
    if args.way == "ours":
        from distime.model.block_attention import SDPA_BLOCKS

        model.config.get_text_config()._attn_implementation = SDPA_BLOCKS  # as `train.speed` does
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text("{}")
        recipe = ModelArguments(
            folder, freeze_llm=True, freeze_mlp=True, freeze_backbone=True, use_llm_lora=16,
            lora_dropout=0.0,  # dropped activations would make the losses of the ways differ
        )  # fmt: skip
    select_trainable(model, recipe)
    together = not full_logits and args.questions > 1
    batches = our_batches(make_group(model, args.tokens, args.questions, together))
    loss_of = full_logits_loss if full_logits else our_loss

    def step() -> float:
        model.zero_grad()
        total = 0.0
        for batch in batches:
            loss = loss_of(model, batch) / len(batches)
            loss.backward()
            total += loss.item()
        return total

    seconds = []
    for _ in range(args.steps):
        start = time.process_time()
        loss = step()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gradients = [p.grad.norm() for p in model.parameters() if p.requires_grad]
    floor = None
    if args.way == "ours":
        with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
            step()
        floor = counter.get_total_flops() / product_rate()
    return {
        "cpu_seconds": min(seconds),
        "peak_mib": peak / 1024,
        "loss": loss,
        "gradient_norm": torch.stack(gradients).norm().item(),
        "parameters": model.num_parameters(),
        "floor": floor,
    }


def _attended(query, key, is_causal: bool, mask: torch.Tensor | None) -> int:
    """Multiplications of one product of queries and keys, of pairs that see each other alone."""
    pairs = query.shape[2] * key.shape[2]
    if mask is not None:
        pairs = int((mask > torch.finfo(mask.dtype).min / 2).sum()) // mask.shape[0]
    elif is_causal:
        pairs = query.shape[2] * (query.shape[2] + 1) // 2
    return query.shape[0] * query.shape[1] * pairs * query.shape[3]


def _attention(query, key, value, dropout=0.0, is_causal=False, *, attn_mask=None, **_) -> int:
    return 2 * 2 * _attended(query, key, is_causal, attn_mask)


def _attention_backward(
    grad, query, key, value, out, logsumexp, dropout, is_causal, *, attn_mask=None, **_
) -> int:
    return 2 * 5 * _attended(query, key, is_causal, attn_mask)


_attention._get_raw = _attention_backward._get_raw = True
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""PyTorch's counter does not know the attention of CPUs, and would leave it out."""


def product_rate() -> float:
    """Operations a CPU second of a large product of matrices in float32."""
    a = torch.randn(2048, 2048)
    a @ a
    start = time.process_time()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.process_time() - start)


def in_process(way: str, steps: int, environment: Mapping[str, str], old: Path | None) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--steps", str(steps)]
    environment = dict(environment)
    if way == "old":
        environment["PYTHONPATH"] = str(old / "internvl_chat")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="published config.json, or its folder")
    parser.add_argument("--tokens", type=int, default=1404, help="of a question with its frames")
    parser.add_argument("--questions", type=int, default=1, help="about the video")
    parser.add_argument("--steps", type=int, default=3, help="steps of each way; the least counts")
    parser.add_argument("--old", type=Path, help="folder of another checkout of this repository")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="in place of all")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(one_way(args)))
        return
    returns_memory = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    ways = args.ways or [way for way in WAYS if way != "old" or args.old]
    results = {}
    for way in ways:
        timed = in_process(way, args.steps, os.environ, args.old)
        peak = in_process(way, 1, returns_memory, args.old)["peak_mib"]
        results[way] = timed | {"peak_mib": peak}
    first = results[ways[0]]
    tokens = args.tokens * args.questions
    print(f"{first['parameters']:,} parameters, {tokens} tokens, 1 thread")
    print(f"{'':<16}{'CPU s':>8}{'ratio':>8}{'peak MiB':>10}{'less':>7}{'loss':>10}{'|grad|':>10}")
    for way, result in results.items():
        ratio = first["cpu_seconds"] / result["cpu_seconds"]
        less = 1 - result["peak_mib"] / first["peak_mib"]
        print(
            f"{way:<16}{result['cpu_seconds']:>8.2f}{ratio:>8.1f}{result['peak_mib']:>10.0f}"
            f"{less:>7.0%}{result['loss']:>10.4f}{result['gradient_norm']:>10.4f}"
        )
        for value in ("loss", "gradient_norm"):
            error = abs(result[value] - first[value])
            assert error <= 1e-4 * abs(first[value]), f"{way}: {value} differs by {error}"
    if "ours" in results:
        floor = results["ours"]["floor"]
        parts = [
            f"{way} is {results[way]['cpu_seconds'] / floor:.2f} of it"
            for way in ("old", "ours")
            if way in results
        ]
        print(
            f"{'floor':<16}{floor:>8.2f}{first['cpu_seconds'] / floor:>8.1f}   ({'; '.join(parts)})"
        )
    print("Losses and gradient norms agree to a relative 1e-4.")


if __name__ == "__main__":
    main()
