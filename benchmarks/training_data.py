"""Padding, step time and questions per second: separate, packed, and behind shared frames.

    python benchmarks/training_data.py [--videos 12] [--questions 2.8 3.5 8.6]

A synthetic mix: videos of 8 to 16 frames (drawn evenly), each asked 1 + Poisson questions, 2.8, 3.5
and 8.6 of them on average; 15 to 60 tokens a question, 5 to 20 an answer with one event. One pass
over all questions, forward and backward, with one model and one set of samples:

separate  a batch of --batch-size rows, one question each, padded to the longest
by length the same with rows of like length together
packed    rows of --row-tokens tokens, filled with samples
shared    the questions of a video behind one copy of its frames, then packed

The last two once with a mask over the whole row (as before) and once group by group, as training
does (`distime.model.block_attention`). All must give the same loss. One thread; compare the ratios:
seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from distime import DisTimeForConditionalGeneration
from distime.data.collator import FOR_TRAINER, Collator
from distime.data.dataset import SampleGroup
from distime.data.plan import PlanSettings, make_plan
from distime.model.block_attention import SDPA_BLOCKS
from distime.processing.prompt import IGNORE_INDEX, Encoded
from models import Transformer, make_config, small_sizes

PAD, IMAGE, TIME, FRAME, IMG, IMG_END, VOCABULARY = 0, 1, 2, 3, 4, 5, 2000
IMAGE_SIZE, TOKENS_PER_FRAME = 112, 16
SIZES = small_sizes(
    Transformer(256, 4, 4), Transformer(128, 3, 2), vocab_size=VOCABULARY, image_size=IMAGE_SIZE
)


def make_groups(random: np.random.Generator, videos: int, questions: float) -> list[SampleGroup]:
    """Every video with its questions behind one copy of its frames."""
    groups = []
    for video in range(videos):
        frames = int(random.integers(8, 17))
        prefix = [FRAME, 10, IMG, *[IMAGE] * TOKENS_PER_FRAME, IMG_END, 11] * frames
        items, targets = [], []
        for _ in range(1 + random.poisson(questions - 1)):
            asked = random.integers(20, VOCABULARY, random.integers(15, 61)).tolist()
            answer = random.integers(20, VOCABULARY, random.integers(5, 21)).tolist()
            answer[len(answer) // 2] = TIME
            labels = [IGNORE_INDEX] * len(asked) + answer
            items.append(Encoded(asked + answer, labels, num_time_stamps=1))
            targets.append(torch.from_numpy(np.sort(random.random((1, 2)))).float())
        pixels = random.standard_normal((frames, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
        times = (torch.arange(frames) + 0.5) / frames
        places = [f"video {video}"] * len(items)
        groups.append(SampleGroup(prefix, items, targets, torch.from_numpy(pixels), times, places))
    return groups


def separated(groups: Sequence[SampleGroup]) -> list[SampleGroup]:
    """The same samples, each with frames of its own."""
    alone = []
    for group in groups:
        ignored = [IGNORE_INDEX] * len(group.prefix_ids)
        for item, target in zip(group.items, group.targets, strict=True):
            whole = Encoded(group.prefix_ids + item.input_ids, ignored + item.labels, 1)
            alone.append(
                SampleGroup([], [whole], [target], group.pixel_values, group.frame_times, ["-"])
            )
    return alone


def make_batches(groups: list[SampleGroup], settings: PlanSettings, rows: int) -> list[dict]:
    """Lay groups in rows as a training run does, `rows` to a batch."""
    lengths = [len(g.prefix_ids) + sum(len(i.input_ids) for i in g.items) for g in groups]
    plan = make_plan(len(groups), settings, lengths)
    laid = [[groups[index] for index, _ in row] for row in plan]
    collate = Collator(PAD)
    return [collate(laid[start : start + rows]) for start in range(0, len(laid), rows)]


def measure(model, batches: list[dict], by_mask: bool) -> dict[str, float]:
    """One pass over all batches: loss, share of padding, CPU seconds."""
    num_samples = sum(batch["num_samples"] for batch in batches)
    padding = positions = loss = 0
    start = time.process_time()
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name not in FOR_TRAINER}
        if not by_mask:
            inputs["attention_blocks"] = batch.get("attention_blocks")
        part = model(**inputs, loss_divisor=num_samples).loss
        part.backward()
        loss += part.item()
    seconds = time.process_time() - start
    gradient = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    model.zero_grad()
    for batch in batches:
        real = batch["group_ids"] >= 0 if "group_ids" in batch else batch["attention_mask"] > 0
        padding += int((~real).sum())
        positions += real.numel()
    return {
        "rows": sum(len(batch["input_ids"]) for batch in batches),
        "padding": padding / positions,
        "seconds": seconds,
        "steps": len(batches),
        "loss": loss,
        "gradient": gradient,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=float, nargs="+", default=[2.8, 3.5, 8.6])
    parser.add_argument("--videos", type=int, default=12, help="of each mix")
    parser.add_argument("--batch-size", type=int, default=4, help="rows of the padded batches")
    parser.add_argument("--row-tokens", type=int, default=2048, help="of a packed row")
    parser.add_argument("--repeats", type=int, default=2, help="passes; the fastest counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = make_config(SIZES, image_token=IMAGE, time_token=TIME, frame_token=FRAME)
    model = DisTimeForConditionalGeneration(config).train()
    config.get_text_config()._attn_implementation = SDPA_BLOCKS  # as `distime.train.speed` does
    print(f"{model.num_parameters():,} parameters, {args.videos} videos in every mix, 1 thread\n")
    print("| questions a video | way | rows | padding | CPU s | questions/s | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for mean in args.questions:
        shared = make_groups(np.random.default_rng(0), args.videos, mean)
        alone = separated(shared)
        packed = PlanSettings(packed_length=args.row_tokens)
        size = args.batch_size
        by_length = PlanSettings(group_by_length=True, rows_per_step=size)
        apart, behind = make_batches(alone, packed, 1), make_batches(shared, packed, 1)
        ways = {
            "separate": make_batches(alone, PlanSettings(), size),
            "by length": make_batches(alone, by_length, size),
            "packed, by mask": apart,
            "packed": apart,
            "shared, by mask": behind,
            "shared": behind,
        }
        first = None
        for way, batches in ways.items():
            runs = [measure(model, batches, "mask" in way) for _ in range(args.repeats)]
            result = min(runs, key=lambda run: run["seconds"])
            first = first or result
            for name in ("loss", "gradient"):
                error = abs(result[name] - first[name])
                assert error <= 1e-4 * first[name], f"{way}: {name} differs by {error}"
            rate, ratio = len(alone) / result["seconds"], first["seconds"] / result["seconds"]
            print(
                f"| {len(alone) / args.videos:.1f} | {way} | {result['rows']} | "
                f"{result['padding']:.1%} | {result['seconds']:.2f} | {rate:.2f} | {ratio:.2f} |"
            )
    print("\nLosses and gradient norms agree to a relative 1e-4 within each mix.")


if __name__ == "__main__":
    main()
