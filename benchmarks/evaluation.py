"""CPU time of evaluation: one pass per video against the published pass per query, and the floor.

    python benchmarks/evaluation.py                    the model and questions in ../shared/bench
    python benchmarks/evaluation.py --config FOLDER    another folder with the same files
    python benchmarks/evaluation.py --old COMMIT       what "before" is

The folder holds `config.json` (a published-layout DisTime configuration), tokenizer files and
`inputs.json` (questions about one video, frame times, the ids of the answer). Weights are random;
every way is made to emit the same answer ids, so that all take the same number of steps, and the
times they decode are compared.

published: for each query the frames are encoded, the whole prompt is read with eager attention,
logits are computed at every prompt position and hidden states kept for every layer, as the
published implementation does. ours: what `distime evaluate` does. before: the same of an older
commit, read from git and run beside ours in this run. floor: the products of matrices that our way
makes, which are the needed ones but for the padding of questions, at the rate of one large product
measured in the same run. One thread; CPU seconds from decoded frames to decoded answers, without
reading files.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from distime import DisTimeForConditionalGeneration
from distime.engine import Decoding, Engine
from distime.model.library import CACHE
from distime.model.time_modules import expected_time
from distime.processing.processor import DisTimeProcessor
from distime.processing.sampling import VideoSample
from models import BENCH, bench_folder, make_config, read_sizes
from training_step import product_rate

FRAME = "<FRAME_TIME_REF>: <image>"


OLD = "279cc9f"
"""The last commit before there was an engine; it answers as b4020fa does, which does not run on
transformers 5.24."""


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
    engine = Engine(model, processor)

    def forced(logits, decodings, generators, lengths, end_id):
        logits.float().argmax(-1).tolist()
        return [answer[length] for length in lengths]

    with mock.patch("distime.engine.batch.choose", forced):
        answers = engine.answer(
            processor.shared_prefix(sample, questions), Decoding(max_new_tokens=len(answer))
        )
    times = [[[event.start, event.end] for event in one.events] for one in answers]
    return list(torch.tensor(times) / sample.duration)


def operations(way, *args) -> int:
    """Of the products of matrices in a run; pairs that a causal mask hides are not counted."""

    def attention(query, key, value, dropout_p=0.0, is_causal=False, **_) -> int:
        rows, heads, queries, size = query
        pairs = queries * key[2]
        return 4 * rows * heads * size * (pairs // 2 if is_causal else pairs)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        way(*args)
    return counter.get_total_flops()


IN_OLD_COMMIT = """
import json, sys, time
checkout, folder, counts, repeats = sys.argv[1], *map(json.loads, sys.argv[2:])
sys.path[:0] = [checkout + "/benchmarks", checkout + "/internvl_chat"]
from pathlib import Path
import numpy as np
import torch
import distime
import evaluation
assert Path(distime.__file__).is_relative_to(checkout), distime.__file__
torch.set_num_threads(1)
folder = Path(folder)
inputs = json.loads((folder / "inputs.json").read_text())
processor, model = evaluation.build(folder)
size, times = processor.settings.image_size, inputs["frame_times"]
frames = np.random.default_rng(0).integers(0, 256, (len(times), size, size, 3), np.uint8)
sample = evaluation.VideoSample(frames, times, inputs["duration"], list(range(len(times))))
questions = [question.split(evaluation.FRAME)[-1] for question in inputs["questions"]]
for count in [1, *counts]:
    asked = [questions[i % len(questions)] for i in range(count)]
    for _ in range(repeats):
        start = time.process_time()
        evaluation.ours(processor, model, sample, asked, inputs["forced_answer_ids"])
        print(json.dumps([count, time.process_time() - start]), flush=True)
"""


def of_commit(commit: str, folder: Path, counts: list[int], repeats: int) -> dict[int, float]:
    """CPU seconds of `ours` as a commit has it, by number of queries; none if git has it not."""
    root = Path(__file__).resolve().parents[1]
    archive = subprocess.run(["git", "archive", commit], cwd=root, capture_output=True)
    if archive.returncode:
        print(f"no commit {commit} here, so nothing to compare with: {archive.stderr.decode()}")
        return {}
    with tempfile.TemporaryDirectory() as checkout:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(checkout, filter="data")
        given = [json.dumps(one) for one in (str(folder.resolve()), counts, repeats)]
        command = [sys.executable, "-c", IN_OLD_COMMIT, checkout, *given]
        done = subprocess.run(command, capture_output=True, text=True, cwd=checkout)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        print(f"commit {commit} does not run with what is installed here: {last}")
        return {}
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    return {count: min(s for n, s in runs if n == count) for count in counts}


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
    parser.add_argument("--published", type=int, help="queries asked that way; default: all")
    parser.add_argument("--old", default=OLD, metavar="COMMIT", help="an older one to compare with")
    args = parser.parse_args()
    folder, inputs = bench_folder(args.config)
    torch.set_num_threads(1)
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
    once = questions[: args.published]
    published_seconds, expected = cpu_seconds(published, processor, model, sample, once, answer)
    per_query = published_seconds / len(once)
    print(f"published: {published_seconds:.1f} CPU s for {len(once)} queries, {per_query:.2f} each")
    rates = [product_rate()]
    found = {}
    for count in args.queries:
        asked = [questions[i % len(questions)] for i in range(count)]
        runs = [
            cpu_seconds(ours, processor, model, sample, asked, answer) for _ in range(args.repeats)
        ]
        needed = operations(ours, processor, model, sample, asked, answer)
        found[count] = min(seconds for seconds, _ in runs), needed
        for i, times in enumerate(runs[0][1]):
            if i % len(questions) < len(expected):
                torch.testing.assert_close(
                    times, expected[i % len(questions)], atol=1e-4, rtol=0, check_dtype=False
                )
        rates.append(product_rate())
    before = of_commit(args.old, folder, args.queries, args.repeats)
    rate = max(rates)
    print(f"a large product: {rate / 1e9:.0f} GFLOP/s; before: commit {args.old}\n")
    print("queries  published  before    ours   floor  published/ours  before/ours  ours/floor")
    for count, (seconds, needed) in found.items():
        floor = needed / rate
        old = f"{before[count]:7.2f}" if before else "      -"
        gain = f"{before[count] / seconds:11.2f}" if before else "          -"
        print(
            f"{count:7}  {count * per_query:9.2f} {old} {seconds:7.2f} {floor:7.2f}"
            f"  {count * per_query / seconds:14.1f}  {gain}  {seconds / floor:10.2f}"
        )
    print("\nAll times agree to 1e-4 of the video. The published column is queries x its mean.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
