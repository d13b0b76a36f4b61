"""Bytes that a packed row keeps for the backward pass, and those of frozen weights: counted.

    python benchmarks/training_memory.py [--tokens 2048] [--layers 12]

One row of videos with several questions each behind shared frames, packed. What autograd keeps is
counted, every storage once, without the weights; losses must be equal.

bool mask   as before: SDPA makes a mask that is added from it in every layer, and keeps each
one mask    in the form that is added, made once for all layers
blocks      group by group (`distime.model.block_attention`), as training does
"""

from __future__ import annotations

import argparse
from unittest import mock

import numpy as np
import torch

from distime import DisTimeForConditionalGeneration
from distime.data.collator import FOR_TRAINER
from distime.data.plan import PlanSettings
from distime.model import packing
from distime.model.block_attention import SDPA_BLOCKS
from distime.train import speed
from models import Transformer, make_config, small_sizes
from training_data import FRAME, IMAGE, IMAGE_SIZE, TIME, VOCABULARY, make_batches, make_groups


def kept_bytes(model: DisTimeForConditionalGeneration, arguments: dict) -> tuple[int, float]:
    """Bytes kept for the backward pass of a row, and its loss."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**arguments, use_cache=False).loss.item()
    return sum(storage.nbytes() for storage in kept.values()), loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2048, help="most of a row")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = small_sizes(
        Transformer(args.width, args.layers, 4), Transformer(32, 1, 2),
        vocab_size=VOCABULARY, image_size=IMAGE_SIZE,
    )  # fmt: skip
    config = make_config(sizes, image_token=IMAGE, time_token=TIME, frame_token=FRAME)
    model = DisTimeForConditionalGeneration(config).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision" not in name and "projector" not in name)
    groups = make_groups(np.random.default_rng(0), 8, 8.6)
    batches = make_batches(groups, PlanSettings(packed_length=args.tokens), 1)
    batch = max(batches, key=lambda one: one["input_ids"].numel())
    arguments = {name: value for name, value in batch.items() if name not in FOR_TRAINER}
    told = {"attention_blocks": batch["attention_blocks"]}
    as_before = mock.patch.object(packing, "additive_mask", lambda visible, dtype: visible)
    with as_before:
        before = kept_bytes(model, arguments)
    once = kept_bytes(model, arguments)
    model.config.get_text_config()._attn_implementation = SDPA_BLOCKS
    blocks = kept_bytes(model, arguments | told)
    tokens = batch["input_ids"].numel()
    print(f"{tokens} tokens, {args.layers} layers of width {args.width}, float32")
    for way, (kept, loss) in {"bool mask": before, "one mask": once, "blocks": blocks}.items():
        ratio = before[0] / kept
        print(f"{way:<12}{kept / 2**20:>8.1f} MiB  {ratio:>5.2f} times less  loss {loss:.5f}")
        assert abs(loss - before[1]) < 1e-4

    model.requires_grad_(False)
    model.time_decoder.requires_grad_(True)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    wide = sum(p.nbytes for p in frozen)
    speed.narrow_frozen(model, exact=False)
    narrow = sum(p.nbytes for p in frozen)
    print(f"frozen weights without DeepSpeed: {wide / narrow:.1f} times less with --bf16")


if __name__ == "__main__":
    main()
