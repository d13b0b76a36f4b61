"""CPU time of evaluation: one pass per video against the published pass per query.

    python benchmarks/evaluation.py                    the model and questions in ../shared/bench
    python benchmarks/evaluation.py --config FOLDER    another folder with the same files

The folder holds `config.json` (a published-layout DisTime configuration), tokenizer files and
`inputs.json` (questions about one video, frame times, the ids of the answer). Weights are random;
every way is made to emit the same answer ids, so that all take the same number of steps, and the
times they decode are compared.

published: for each query the frames are encoded, the whole prompt is read with eager attention,
logits are computed at every prompt position and hidden states kept for every layer, as the
published implementation does. ours: what `distime evaluate` does. One thread; CPU seconds from
decoded frames to decoded answers, without reading files.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LogitsProcessor

from distime import DisTimeForConditionalGeneration
from distime.model.library import CACHE
from distime.model.time_modules import expected_time
from distime.processing.processor import DisTimeProcessor
from distime.processing.sampling import VideoSample
from models import BENCH, make_config, read_sizes

FRAME = "<FRAME_TIME_REF>: <image>"


class Forced(LogitsProcessor):
    """Lets `generate` emit given ids alone."""

    def __init__(self, ids: list[int], prompt_length: int):
        self.ids, self.prompt_length = ids, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.ids[input_ids.shape[1] - self.prompt_length]] = 0
        return forced


def build(folder: Path) -> tuple[DisTimeProcessor, DisTimeForConditionalGeneration]:
    """The processor of a folder, and its model with random weights."""
    processor = DisTimeProcessor.from_pretrained(folder)
    ids = processor.token_ids
    config = make_config(
        read_sizes(folder),
        image_token=ids.img_context,
        time_token=ids.time_stamp,
        frame_token=ids.frame_time_ref,
    )
    torch.manual_seed(0)
    return processor, DisTimeForConditionalGeneration(config).eval()


@torch.no_grad()
def published(processor, model, sample, questions, answer) -> list[torch.Tensor]:
    """Answer one by one; return every answer's times, normalised."""
    model.set_attn_implementation("eager")
    found = []
    for question in questions:
        inputs = processor([sample], [question])
        inputs.pop("durations")
        cache, history, interval, times = None, [], None, []
        for token in answer:
            output = model(
                **inputs,
                **{CACHE: cache},
                use_cache=True,
                output_hidden_states=True,
                time_targets=interval,
            )
            output.logits.float()[:, -1].argmax(-1)
            cache = output[CACHE]
            history.append(output.hidden_states[-1])
            hidden = torch.cat(history, dim=1)[:, -1]  # the whole history, at every step
            interval = None
            if token == model.config.time_token_id:
                interval = expected_time(model.time_decoder(hidden).softmax(-1))
                times.append(interval)
            inputs = {"input_ids": torch.tensor([[token]])}
        found.append(torch.cat(times))
    return found


@torch.no_grad()
def ours(processor, model, sample, questions, answer) -> list[torch.Tensor]:
    """Answer in one batch behind a shared prefix; return every answer's times, normalised."""
    model.set_attn_implementation("sdpa")
    inputs = processor.shared_prefix(sample, questions)
    prefix = model.encode_prefix(**inputs.prefix)
    length = inputs.suffixes["input_ids"].shape[1]
    output = model.generate_from_prefix(
        prefix,
        **inputs.suffixes,
        do_sample=False,
        max_new_tokens=len(answer),
        eos_token_id=processor.token_ids.im_end,
        pad_token_id=processor.token_ids.pad,
        logits_processor=[Forced(answer, length)],
        return_dict_in_generate=True,
    )
    return output.times


def cpu_seconds(way, *args) -> tuple[float, list[torch.Tensor]]:
    start = time.process_time()
    times = way(*args)
    return time.process_time() - start, times


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=BENCH, help="folder, or its config.json")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours; the least counts")
    args = parser.parse_args()
    folder = args.config.parent if args.config.suffix == ".json" else args.config
    if not (folder / "inputs.json").is_file():
        print(f"{folder}: no inputs.json there; name the folder with --config", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    inputs = json.loads((folder / "inputs.json").read_text())
    processor, model = build(folder)
    size = processor.settings.image_size
    times, answer = inputs["frame_times"], inputs["forced_answer_ids"]
    frames = np.random.default_rng(0).integers(0, 256, (len(times), size, size, 3), np.uint8)
    sample = VideoSample(frames, times, inputs["duration"], list(range(len(times))))
    questions = [question.split(FRAME)[-1] for question in inputs["questions"]]
    print(
        f"{model.num_parameters():,} parameters, {len(times)} frames of {size} px, "
        f"{len(answer)} answer tokens, {len(questions)} questions"
    )

    ours(processor, model, sample, questions[:1], answer)  # first calls allocate
    before, expected = cpu_seconds(published, processor, model, sample, questions, answer)
    per_query = before / len(questions)
    print(f"published: {before:.1f} CPU s for {len(questions)} queries, {per_query:.2f} each\n")
    print("queries  published      ours  ratio  queries per CPU s")
    for count in args.queries:
        asked = [questions[i % len(questions)] for i in range(count)]
        runs = [
            cpu_seconds(ours, processor, model, sample, asked, answer) for _ in range(args.repeats)
        ]
        seconds = min(seconds for seconds, _ in runs)
        for i, found in enumerate(runs[0][1]):
            torch.testing.assert_close(found, expected[i % len(expected)], atol=1e-4, rtol=0)
        print(
            f"{count:7}  {count * per_query:9.2f} {seconds:9.2f} {count * per_query / seconds:6.1f}"
            f"  {count / seconds:17.2f}"
        )
    print("\nAll times agree to 1e-4 of the video. The published column is queries x its mean.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
