"""CPU time of answering many videos: one after another against the engine's continuous batches.

    python benchmarks/throughput.py                    the model in ../shared/bench
    python benchmarks/throughput.py --config FOLDER    another folder with the same files
    python benchmarks/throughput.py --rounds 1         one question a video alone

The folder holds `config.json`, tokenizer files and `inputs.json` as for `benchmarks/evaluation.py`.
Weights are random. Lengths of answers are given to both ways, so that both make the same steps; ids
must be equal and times agree.

one by one: each video is encoded, all layers and logits of the last position, and its questions are
decoded together behind it by `generate`, as `distime evaluate` did before there was an engine.
engine: the rows of all videos together, refilled as answers end. One thread, CPU seconds;
`decoding` is all but the encoding of videos. The first round is that of one question a video, whose
ratios are said again at the end; there are twice as many answers as rows, so that the batch is full
but for its last steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from distime.engine import Decoding, Engine, Job
from distime.processing.sampling import VideoSample
from evaluation import FRAME, build
from models import BENCH, bench_folder

ROUNDS = {"1": (1,), "mixed": (1,), "2.8": (3, 2, 3, 3, 3), "8.6": (9, 8, 9)}
"""Questions of videos: the means of QVHighlights, again with answers of mixed length, Charades-STA,
and NExT-GQA."""
MIXED = (5, 55)
"""Tokens of the shortest and the longest answer of mixed length."""


def make_videos(processor, inputs: dict, rows: int, counts: tuple[int, ...]) -> list:
    """Prepared inputs of videos with so many questions each, until there are `rows` or more."""
    size, times = processor.settings.image_size, inputs["frame_times"]
    questions = [question.split(FRAME)[-1] for question in inputs["questions"]]
    made, asked = [], 0
    while asked < rows:
        count = counts[len(made) % len(counts)]
        frames = np.random.default_rng(len(made)).integers(
            0, 256, (len(times), size, size, 3), np.uint8
        )
        sample = VideoSample(frames, times, inputs["duration"], list(range(len(times))))
        picked = [questions[(asked + i) % len(questions)] for i in range(count)]
        made.append(processor.shared_prefix(sample, picked))
        asked += count
    return made


class CPU:
    """CPU seconds of the process, those of encoding videos apart."""

    def __init__(self, model):
        self.model, self.encoding = model, 0.0
        self.encode = model.encode_prefix

    def __enter__(self) -> CPU:
        def timed(**inputs):
            start = time.process_time()
            prefix = self.encode(**inputs)
            self.encoding += time.process_time() - start
            return prefix

        self.model.encode_prefix = timed
        self.start = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.whole = time.process_time() - self.start
        self.model.encode_prefix = self.encode

    @property
    def decoding(self) -> float:
        """All but the encoding."""
        return self.whole - self.encoding


def one_by_one(processor, model, videos, lengths) -> tuple[CPU, dict]:
    """Video after video, each with all its questions."""
    found = {}
    with CPU(model) as cpu, torch.no_grad():
        for number, inputs in enumerate(videos):
            length = lengths[number]
            output = model.generate_from_prefix(
                model.encode_prefix(**inputs.prefix, whole_pass=True),
                **inputs.suffixes,
                do_sample=False,
                min_new_tokens=length,
                max_new_tokens=length,
                eos_token_id=processor.token_ids.im_end,
                pad_token_id=processor.token_ids.pad,
                return_dict_in_generate=True,
            )
            new = output.sequences[:, inputs.suffixes["input_ids"].shape[1] :]
            found[number] = [processor.decode(row) for row in new], torch.cat(output.times)
    return cpu, found


def by_engine(processor, model, videos, lengths, rows: int) -> tuple[CPU, dict]:
    """All videos in continuous batches."""
    engine, found = Engine(model, processor, max_rows=rows), {}
    jobs = [
        Job(
            lambda inputs=inputs: inputs,
            Decoding(min_new_tokens=lengths[number], max_new_tokens=lengths[number]),
            tag=number,
        )
        for number, inputs in enumerate(videos)
    ]
    with CPU(model) as cpu:
        for one in engine.run(jobs):
            answers = one.first_answers()
            times = [[e.start, e.end] for answer in answers for e in answer.events]
            duration = videos[one.job.tag].duration
            times = torch.tensor(times).view(-1, 2) / duration
            found[one.job.tag] = [answer.text for answer in answers], times
    return cpu, found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=BENCH, help="folder, or its config.json")
    parser.add_argument("--rows", type=int, default=16, help="rows that are decoded at once")
    parser.add_argument("--answers", type=int, help="of a round, at least; default: 2 x rows")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of every answer")
    parser.add_argument("--rounds", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    args = parser.parse_args()
    folder, inputs = bench_folder(args.config)
    torch.set_num_threads(1)
    processor, model = build(folder)
    print(f"{model.num_parameters():,} parameters, {len(inputs['frame_times'])} frames, one thread")
    print("questions/video  answer tokens  videos    one by one (decoding)      engine (decoding)"
          "   whole  decoding")  # fmt: skip
    ratios = {}
    for name in args.rounds:
        lengths, tokens = [args.tokens] * 1000, f"{args.tokens}"
        if name == "mixed":
            lengths = np.random.default_rng(1).integers(MIXED[0], MIXED[1] + 1, 1000).tolist()
            tokens = "{} to {}".format(*MIXED)
        videos = make_videos(processor, inputs, args.answers or 2 * args.rows, ROUNDS[name])
        before, expected = one_by_one(processor, model, videos, lengths)
        after, found = by_engine(processor, model, videos, lengths, args.rows)
        for number, (texts, times) in expected.items():
            assert found[number][0] == texts, f"video {number}: other tokens"
            torch.testing.assert_close(found[number][1].double(), times.double(), atol=1e-4, rtol=0)
        ratios[name] = before.decoding / after.decoding, before.whole / after.whole
        columns = (
            f"{'1' if name == 'mixed' else name:>15}",
            f"{tokens:>13}",
            f"{len(videos):6}",
            f"{before.whole:8.1f} s ({before.decoding:6.1f})",
            f"     {after.whole:8.1f} s ({after.decoding:6.1f})",
            f"{ratios[name][1]:6.2f}",
            f"{ratios[name][0]:8.2f}",
        )
        print("  ".join(columns), flush=True)
    if "1" in ratios:
        print(f"decoding ratio: {ratios['1'][0]:.2f}")
        print(f"whole ratio: {ratios['1'][1]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
