"""CPU time of sampling eight answers to a question: behind one shared prefix, and separately.

    python benchmarks/rollouts.py                    the model in ../shared/bench
    python benchmarks/rollouts.py --config FOLDER    another folder with the same files

The folder is as for `benchmarks/throughput.py`; weights are random, and every answer has as many
tokens as `--tokens` says. separately: video and question are run anew for every answer, as where
each is a prompt of its own. shared: as `--objective grpo` samples, the video once and all answers
to all its questions behind it in one batch. Draws are the same, and so must the answers be. One
thread, CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from distime.engine import Decoding, Engine, Job
from distime.engine.batch import Row
from evaluation import build
from models import BENCH, bench_folder
from throughput import make_videos


def separately(engine: Engine, inputs, decoding: Decoding, samples: int) -> list[list[int]]:
    """Ids of each answer to each question, each with its own pass over the video."""
    answers = []
    suffixes, mask = inputs.suffixes["input_ids"], inputs.suffixes["attention_mask"].bool()
    for number in range(len(suffixes) * samples):
        suffix = suffixes[number // samples][mask[number // samples]].tolist()
        row = Row(None, suffix, decoding, decoding.generator(number, engine.model.device))
        batch = engine.batch()
        batch.enter(engine.encode(inputs), [row])
        while batch.rows:
            batch.leave(batch.choose())
            batch.feed()
        answers.append(row.ids)
    return answers


def shared(engine: Engine, inputs, decoding: Decoding, samples: int) -> list[list[int]]:
    """The same behind one prefix."""
    found = {}
    job = Job(
        lambda: inputs,
        decoding,
        samples,
        on_token=lambda question, sample, ids, _: found.update({(question, sample): ids}),
    )
    list(engine.run(job))
    return [found[key] for key in sorted(found)]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=BENCH, help="folder, or its config.json")
    parser.add_argument("--questions", type=int, nargs="+", default=[1], help="of a video")
    parser.add_argument("--samples", type=int, default=8, help="answers to a question")
    parser.add_argument("--tokens", type=int, default=10, help="of every answer")
    args = parser.parse_args()
    folder, told = bench_folder(args.config)
    torch.set_num_threads(1)
    processor, model = build(folder)
    engine = Engine(model, processor, max_rows=256)
    decoding = Decoding(
        min_new_tokens=args.tokens, max_new_tokens=args.tokens, do_sample=True, top_k=0, seed=1,
        sample_times=True,
    )  # fmt: skip
    print(f"{model.num_parameters():,} parameters, {len(told['frame_times'])} frames, one thread")
    print("CPU seconds for each question, its answers together")
    for count in args.questions:
        (inputs,) = make_videos(processor, told, count, (count,))
        seconds, answers = {}, {}
        for way in (shared, separately):
            began = time.process_time()
            answers[way] = way(engine, inputs, decoding, args.samples)
            seconds[way] = (time.process_time() - began) / count
        assert answers[shared] == answers[separately], "other answers"
        ratio = seconds[separately] / seconds[shared]
        print(
            f"{count} questions x {args.samples} answers of {args.tokens} tokens: separately "
            f"{seconds[separately]:.2f}, shared {seconds[shared]:.2f}, 1/{ratio:.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
