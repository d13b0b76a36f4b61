"""Tokens per second, MFU and peak memory of training steps on one GPU: the 1B recipe.

    python benchmarks/training_gpu.py           needs a GPU with bfloat16
    python benchmarks/training_gpu.py --tiny    tries the script itself on a CPU; no speed is shown

The architecture of InternVL2.5-1B with random weights and the published recipe (LoRA of rank 16,
embeddings and head trained in full, the rest frozen), bfloat16, forward and backward without the
optimizer. A row is one sample (16 frames of 448 px and a question), several samples packed until it
is full, or one copy of the frames with as many questions as fit behind it.

MFU is the operations that a step needs over what the GPU could do in its time. They are, without
recomputation: 2 a weight and token forward; 2 more for the gradient of the input, and 2 for that of
the weight where it is trained; in attention 4 x width a layer and pair of tokens that see each
other forward, twice that backward; the head at supervised positions alone; the vision tower forward
alone. "LM" leaves out the operations of the vision tower and its time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from distime import DisTimeForConditionalGeneration
from distime.data.collator import FOR_TRAINER, Collator
from distime.data.dataset import SampleGroup
from distime.processing.prompt import IGNORE_INDEX, Encoded
from distime.toy.tiny import write_tiny_checkpoint
from distime.train import speed
from distime.train.arguments import ModelArguments, TrainArguments
from distime.train.lora import select_trainable
from memory_table import make_config

# Dense bfloat16 operations a second, from the makers' data sheets.
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "RTX 4090": 165e12}
FRAMES, QUESTION, ANSWER = 16, 100, 20


class Steps:
    """Training steps of one model: their batches, operations, time and memory."""

    def __init__(self, model: DisTimeForConditionalGeneration):
        self.model, self.config = model, model.config
        self.device, self.is_gpu = model.device, model.device.type == "cuda"

    def sample(self, frames: int, items: int) -> SampleGroup:
        """A video of some frames with questions behind one copy of them."""
        config = self.config
        frame = [config.frame_time_token_id, *[config.image_token_id] * config.image_seq_length]
        text = [1] * (QUESTION + ANSWER - 1) + [config.time_token_id]
        labels = [IGNORE_INDEX] * QUESTION + text[QUESTION:]
        prefix, encoded = frame * frames, [Encoded(text, labels, 1)] * items
        if items == 1:
            alone = Encoded(prefix + text, [IGNORE_INDEX] * len(prefix) + labels, 1)
            prefix, encoded = [], [alone]
        size = config.vision_config.image_size
        pixels, times = torch.randn(frames, 3, *size), (torch.arange(frames) + 0.5) / frames
        target = torch.tensor([[0.2, 0.4]])
        return SampleGroup(prefix, encoded, [target] * items, pixels, times, ["-"] * items)

    def batch(self, kind: str, rows: int, row_tokens: int) -> dict[str, torch.Tensor]:
        """Rows of a kind: "single", "packed" or "shared"."""
        per_frame = 1 + self.config.image_seq_length
        if kind == "single":
            row = [self.sample(FRAMES, 1)]
        elif kind == "packed":
            row, left = [], row_tokens
            while (frames := min(FRAMES, (left - QUESTION - ANSWER) // per_frame)) > 0:
                row.append(self.sample(frames, 1))
                left -= frames * per_frame + QUESTION + ANSWER
        else:
            room = row_tokens - FRAMES * per_frame
            row = [self.sample(FRAMES, max(room // (QUESTION + ANSWER), 2))]
        collated = Collator(0)([row] * rows)
        batch = {name: v for name, v in collated.items() if name not in FOR_TRAINER}
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        if "attention_blocks" in collated:
            batch["attention_blocks"] = collated["attention_blocks"]
        return batch

    def operations(self, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
        """Return the operations that a step needs: of the language model, of the vision tower."""
        model, text, vision = self.model.model, self.config.text_config, self.config.vision_config
        tokens = batch["input_ids"].numel()
        lm = sum(
            tokens * p.numel() * (6 if p.requires_grad else 4)
            for p in model.language_model.layers.parameters()
        )
        lm += 12 * _visible_pairs(batch) * text.hidden_size * text.num_hidden_layers
        supervised = int((batch["labels"] != IGNORE_INDEX).sum())
        lm += 6 * supervised * self.model.lm_head.weight.numel()
        tiles, patches = len(batch["pixel_values"]), 1 + 4 * self.config.image_seq_length
        weights = sum(p.numel() for p in model.vision_tower.encoder.parameters())
        tower = 2 * patches * weights
        tower += 4 * patches**2 * vision.hidden_size * vision.num_hidden_layers
        projector = sum(p.numel() for p in model.multi_modal_projector.parameters())
        return lm, tiles * (tower + 2 * self.config.image_seq_length * projector)

    def _seconds(self, work, repeats: int) -> float:
        work()  # the first call allocates and compiles
        if self.is_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        if self.is_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    def measure(self, batch: dict[str, torch.Tensor], repeats: int) -> tuple[float, float, float]:
        """Return seconds of a step, of its vision tower, and peak GiB (0 on a CPU)."""

        def step() -> None:
            self.model.zero_grad()
            self.model(**batch).loss.backward()

        @torch.no_grad()
        def look() -> None:
            self.model.get_image_features(pixel_values=batch["pixel_values"])

        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = self._seconds(step, repeats)
        memory = torch.cuda.max_memory_allocated() / 2**30 if self.is_gpu else 0.0
        return seconds, self._seconds(look, repeats), memory


def _visible_pairs(batch: dict[str, torch.Tensor]) -> int:
    """Pairs of tokens of which the later sees the earlier, over all rows."""
    if "group_ids" not in batch:
        lengths = batch["attention_mask"].sum(-1)
        return int((lengths * (lengths + 1) // 2).sum())
    pairs = 0
    for group, sample in zip(batch["group_ids"], batch["sample_ids"], strict=True):
        seen = (group[:, None] == group) & ((sample < 0) | (sample[:, None] == sample))
        pairs += int(seen.tril().sum())
    return pairs


def make_model(args: argparse.Namespace) -> DisTimeForConditionalGeneration:
    """The recipe's model, where it is to be trained."""
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_checkpoint(Path(folder), ["when"], hidden_size=32, num_layers=2)
        recipe = ModelArguments(
            folder, freeze_llm=True, freeze_mlp=True, freeze_backbone=True, use_llm_lora=16,
            attn_implementation=args.attention,
        )  # fmt: skip
        training = TrainArguments(
            output_dir=folder, use_cpu=args.tiny, gradient_checkpointing=not args.keep_activations,
            use_liger_kernel=args.liger,
        )  # fmt: skip
        if args.tiny:
            model = DisTimeForConditionalGeneration.from_pretrained(folder)
        else:
            with torch.device("cuda"):
                model = DisTimeForConditionalGeneration(make_config("1B")).to(torch.bfloat16)
    model.set_attn_implementation(args.attention)
    select_trainable(model, recipe)
    speed.apply(model, training)
    return model.train()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--row-tokens", type=int, default=8192, help="of packed and shared rows")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--attention", default="sdpa", choices=speed.ATTENTION)
    parser.add_argument("--liger", action="store_true", help="Liger's kernels")
    parser.add_argument("--keep-activations", action="store_true", help="recompute nothing")
    parser.add_argument("--peak", type=float, help="dense bfloat16 operations a second of the GPU")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, two sizes")
    args = parser.parse_args(argv)
    if args.tiny:
        args.rows, args.row_tokens, args.repeats, args.peak = [1, 2], 512, 1, 1e12
    elif not torch.cuda.is_available():
        print("this benchmark needs a GPU; --tiny tries the script on a CPU", file=sys.stderr)
        return 1
    else:
        name = torch.cuda.get_device_name()
        args.peak = args.peak or next((v for key, v in PEAKS.items() if key in name), None)
        if not args.peak:
            print(f"{name}: name its operations a second with --peak", file=sys.stderr)
            return 1
        print(f"{name}, {args.attention}, {args.peak / 1e12:.0f} Tflop/s peak")
    steps = Steps(make_model(args))
    print("| rows | tokens | questions | tokens/s | questions/s | MFU | LM MFU | peak GiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in ("single", "packed", "shared"):
        for rows in args.rows:
            batch = steps.batch(kind, rows, args.row_tokens)
            tokens, questions = batch["input_ids"].numel(), len(batch["time_targets"])
            head = f"| {rows} {kind} | {tokens} | {questions} | "
            try:
                seconds, looking, memory = steps.measure(batch, args.repeats)
            except torch.OutOfMemoryError:
                print(f"{head}out of memory |")
                continue
            lm, tower = steps.operations(batch)
            mfu = (lm + tower) / seconds / args.peak
            lm_mfu = lm / (seconds - looking) / args.peak
            print(
                f"{head}{tokens / seconds:.0f} | {questions / seconds:.1f} | {mfu:.1%} | "
                f"{lm_mfu:.1%} | {memory:.1f} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
