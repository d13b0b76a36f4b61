"""GPU memory of the recipes, computed: nothing is run, no weight exists.

    python benchmarks/memory_table.py [--gpus 8] [--tokens 8192]

Parameters are counted on the models themselves, made without memory (device "meta"), with LoRA and
the trained parts chosen as fine-tuning chooses them. Then, for each GPU and in bytes:

weights      2 a parameter (bfloat16); ZeRO-3 shards them
gradients    2 a trained parameter; ZeRO-2 and -3 shard them
optimizer    12 a trained parameter (float32 master, two moments of AdamW); always sharded
activations  of one row of --tokens tokens with recomputed layers: the input of every layer, and
             what one layer keeps while it is run backward, counted in its autograd graph

Not in it: fragments, communication buffers, the CUDA context (together some GB).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config

from distime import DisTimeConfig, DisTimeForConditionalGeneration
from distime.train.arguments import ModelArguments
from distime.train.lora import select_trainable
from distime.train.memory import activations

# InternVL2.5's tokenizers and the two tokens of DisTime.
LANGUAGE_MODELS: dict[str, PreTrainedConfig] = {
    "1B": Qwen2Config(
        vocab_size=151_676, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=False,
    ),
    "8B": LlamaConfig(
        vocab_size=92_555, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
    ),
}  # fmt: skip
INTERN_VIT_300M = {
    "model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 448, "patch_size": 14,
    "attention_bias": True,
}  # fmt: skip


def make_config(size: str) -> DisTimeConfig:
    """The configuration of a published size, "1B" or "8B"."""
    text = LANGUAGE_MODELS[size]
    last = text.vocab_size
    return DisTimeConfig(
        text_config=text.to_dict(),
        vision_config=INTERN_VIT_300M,
        image_token_id=last - 3,
        time_token_id=last - 2,
        frame_time_token_id=last - 1,
        image_seq_length=256,
    )


def make_model(size: str, embeddings: str) -> DisTimeForConditionalGeneration:
    """A recipe's model without memory.

    Args:
        size: "1B" or "8B".
        embeddings: --train_embeddings.
    """
    with torch.device("meta"), tempfile.TemporaryDirectory() as folder:
        model = DisTimeForConditionalGeneration(make_config(size)).to(torch.bfloat16)
        (Path(folder) / "config.json").write_text("{}")
        recipe = ModelArguments(
            folder, freeze_llm=True, freeze_mlp=True, freeze_backbone=True, use_llm_lora=16,
            train_embeddings=embeddings,
        )  # fmt: skip
        select_trainable(model, recipe)
    return model.train()


def rows(size: str, choices: Sequence[str], gpus: int, tokens: int) -> Iterator[tuple[str, ...]]:
    """One row of the table for every choice of embeddings and ZeRO stage."""
    for embeddings in choices:
        model = make_model(size, embeddings)
        total = model.num_parameters()
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        recomputed = activations(model, tokens).recomputed
        for stage in (1, 2, 3):
            weights = 2 * total / (gpus if stage == 3 else 1)
            gradients = 2 * trained / (gpus if stage >= 2 else 1)
            optimizer = 12 * trained / gpus
            parts = (weights, gradients, optimizer, recomputed)
            cells = [f"{part / 2**30:.2f}" for part in (*parts, sum(parts))]
            yield (size, embeddings, f"{trained / 1e6:,.1f} M", str(stage), *cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=8192, help="of the rows on one GPU")
    parser.add_argument(
        "--embeddings", nargs="+", default=["full"], help="choices of --train_embeddings"
    )
    args = parser.parse_args()
    print(f"computed, GiB on each of {args.gpus} GPUs, {args.tokens} tokens on each\n")
    head = [
        "model",
        "embeddings",
        "trained",
        "ZeRO",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "sum",
    ]
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    for size in LANGUAGE_MODELS:
        for row in rows(size, args.embeddings, args.gpus, args.tokens):
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
