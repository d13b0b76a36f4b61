"""Time and peak memory of a training step with logits where labels are, against full logits.

    python benchmarks/training_logits.py [--vocabulary 151674] [--tokens 2048] [--supervised 20]

Each way runs in a process of its own, so that neither sees the other's memory. Compare the ratios:
seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

WAYS = ("supervised", "full")


def one_way(way: str, vocabulary: int, tokens: int, supervised: int, steps: int) -> dict:
    """Train a small model for some steps and measure CPU seconds and peak memory."""
    import torch
    import torch.nn.functional as F
    from transformers import Qwen2Config

    from distime import DisTimeConfig, DisTimeForConditionalGeneration

    torch.manual_seed(0)
    torch.set_num_threads(1)
    text = Qwen2Config(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    vision = {
        "model_type": "internvl_vision", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = DisTimeConfig(
        text_config=text.to_dict(), vision_config=vision, image_token_id=5, image_seq_length=1,
        time_token_id=6, frame_time_token_id=7,
    )  # fmt: skip
    model = DisTimeForConditionalGeneration(config).train()
    ids = torch.randint(10, vocabulary, (1, tokens))
    labels = torch.full_like(ids, -100)
    labels[:, -supervised:] = ids[:, -supervised:]
    start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    for _ in range(steps):
        if way == "supervised":
            loss = model(input_ids=ids, labels=labels).loss
        else:
            logits = model(input_ids=ids).logits[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        model.zero_grad()
    seconds = (time.process_time() - start) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "way": way,
        "cpu_seconds": seconds,
        "peak_mib": peak / 1024,
        "step_mib": (peak - start_memory) / 1024,
        "loss": loss.item(),
    }


def main() -> None:
    """Measure both ways and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=151_674)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--supervised", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = (args.vocabulary, args.tokens, args.supervised, args.steps)
    if args.way:
        print(json.dumps(one_way(args.way, *sizes)))
        return
    results = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way]
        for name, value in zip(("vocabulary", "tokens", "supervised", "steps"), sizes, strict=True):
            command += [f"--{name}", str(value)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[way] = json.loads(output.splitlines()[-1])
    print(f"{'logits':<12}{'CPU s/step':>12}{'peak MiB':>12}{'of the step':>14}{'loss':>10}")
    for way, result in results.items():
        print(
            f"{way:<12}{result['cpu_seconds']:>12.2f}{result['peak_mib']:>12.0f}"
            f"{result['step_mib']:>14.0f}{result['loss']:>10.4f}"
        )
    few, full = results["supervised"], results["full"]
    print(
        f"full logits take {full['cpu_seconds'] / few['cpu_seconds']:.1f} times the time and "
        f"{full['step_mib'] / few['step_mib']:.1f} times the memory of the step"
    )


if __name__ == "__main__":
    main()
