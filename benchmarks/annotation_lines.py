"""What long annotation files cost before the first step: reading, lengths of sequences, the check.

python benchmarks/annotation_lines.py --lines 100000

Makes that many lines of about 380 bytes about a few small videos, in a temporary folder, and prints
CPU seconds (user and system, child processes included) and the growth of memory of each part. The
tokenizer is a small one of whole words; a checkpoint's own (--checkpoint) takes longer for a text.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distime.data.checking import check
from distime.data.dataset import DataSettings, TrainingData
from distime.data.lengths import KeptLengths
from distime.data.plan import PlanSettings, make_plan
from distime.processing.processor import DisTimeProcessor
from distime.processing.prompt import encode_conversation
from distime.toy.synthetic import write_videos
from distime.toy.tiny import write_tiny_checkpoint

WORDS = "when does the person who is seen in front of a red door sit down on chair and open it ?"


def main() -> None:
    """Measure each part once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--checkpoint", help="whose tokenizer is used (a tiny one)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the second check")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Print what each part costs."""
    meta = write_lines(folder, arguments.lines)
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        checkpoint = folder / "tiny"
        write_tiny_checkpoint(checkpoint, [WORDS], num_frames=16)
    processor = DisTimeProcessor.from_pretrained(checkpoint)

    data = timed("open", lambda: TrainingData(meta, processor, DataSettings()))
    timed("plan", lambda: make_plan(len(data), PlanSettings(rows_per_step=128)))
    lengths = timed("lengths, first run", lambda: kept_or_counted(data, folder))
    again = timed("lengths, later runs", lambda: kept_or_counted(data, folder))
    assert lengths == again
    settings = PlanSettings(rows_per_step=128, group_by_length=True)
    timed("plan by length", lambda: make_plan(len(data), settings, lengths))
    shared = DataSettings(share_video_prefix=True)
    timed("open, shared prefixes", lambda: TrainingData(meta, processor, shared))
    timed("check --no-open", lambda: list(check(meta, open_media=False)))
    many = {"open_media": False, "workers": arguments.workers}
    timed(f"the same, {arguments.workers} processes", lambda: list(check(meta, **many)))

    few = [data.read(index)[0][0] for index in range(200)]
    media = data.expected_media(few[0])
    tokenizer, template = processor.tokenizer, processor.template
    began = time.process_time()
    for item in few:
        encode_conversation(tokenizer, template, item.turns, media)
    print(f"{'one sequence':24} {(time.process_time() - began) / 200 * 1e3:8.2f} CPU ms")


def kept_or_counted(data: TrainingData, folder: Path) -> list[int]:
    """Do as training does in one process."""
    kept = KeptLengths(data, folder)
    lengths = kept.load()
    if lengths is None:
        lengths = data.lengths()
        kept.save(lengths)
    return lengths


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Do some work and print what it costs."""
    cpu, memory, began = cpu_seconds(), memory_mib(), time.perf_counter()
    result = work()
    print(
        f"{what:24} {cpu_seconds() - cpu:8.2f} CPU s {time.perf_counter() - began:8.2f} s "
        f"{memory_mib() - memory:8.0f} MiB more"
    )
    return result


def cpu_seconds() -> float:
    """CPU time of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def memory_mib() -> float:
    """Most memory held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_lines(folder: Path, count: int) -> Path:
    """Write a meta file and an annotation of ``count`` lines; return the former."""
    videos = [spec.file_name for spec in write_videos(folder / "videos", 4, workers=1)]
    random_ = random.Random(0)
    with (folder / "train.jsonl").open("w") as file:
        for number in range(count):
            query = " ".join(random_.choices(WORDS.split(), k=random_.randint(6, 30)))
            start = random_.randint(0, 2)
            turns = [
                {"from": "human", "value": f"<video>\nWhen does it happen: '{query}'? Return it."},
                {"from": "gpt", "value": "The event is depicted at <TIME_STAMP>."},
            ]
            line = {"id": number, "video": videos[number % 4], "tgt": [start, start + 1]}
            file.write(json.dumps(line | {"conversations": turns}) + "\n")
    size = (folder / "train.jsonl").stat().st_size
    print(f"{count} lines of {size / count:.0f} bytes")
    meta = {"lines": {"root": "videos", "annotation": "train.jsonl"}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


if __name__ == "__main__":
    main()
