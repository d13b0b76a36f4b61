"""Check training data: the meta file, every annotation line and every media file it names.

distime check META.json                             files, turns, intervals, durations
distime check META.json --checkpoint CHECKPOINT     also the lengths of sequences in tokens

Prints problems as FILE:LINE: error|warning: MESSAGE, the first of each kind and how many more there
are, then counts. The exit code is 1 when there are errors. See docs/DATA.md for the format.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distime.cli.shared_flags import add_frame_arguments, frame_settings
from distime.data.problems import ERROR, WARNING
from distime.errors import DisTimeError
from distime.progress import progress

if TYPE_CHECKING:
    from distime.data.checking import CheckedLine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime check``."""
    parser.add_argument("meta", metavar="META.json", type=Path)
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="count tokens with this checkpoint's tokenizer"
    )
    parser.add_argument(
        "--num-frames", "--num_frames", type=int, metavar="N", help="frames of a video (16)"
    )
    add_frame_arguments(parser)
    parser.add_argument(
        "--max-length", type=int, default=8192, help="longest sequence in tokens (8192)"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument(
        "--no-open",
        action="store_true",
        help="only look whether media files exist; do not open them (no durations)",
    )
    parser.add_argument(
        "--show", metavar="N", type=int, default=10, help="problems of a kind that are printed (10)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the problems and the counts; return 1 if there are errors."""
    # Its prompt needs transformers, for which `--help` must not wait.
    from distime.data.checking import check

    settings = {"num_frames": args.num_frames or 16, "open_media": not args.no_open}
    if args.checkpoint is not None:
        from distime.processing.processor import DisTimeProcessor

        try:
            processor = DisTimeProcessor.from_pretrained(args.checkpoint)
            processor.adjust(num_frames=args.num_frames, **frame_settings(args))
            settings["processor"] = processor
        except DisTimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        settings["max_length"] = args.max_length

    severities = Counter()
    kinds = Counter()
    counts = Counter()
    lengths: list[int] = []
    with progress(desc="check", unit="item", delay=1, leave=False) as bar:

        def count(line: CheckedLine) -> None:
            bar.update()
            counts["items"] += 1
            counts["intervals"] += line.num_events
            counts["clamped"] += line.num_clamped
            if line.num_tokens is not None:
                lengths.append(line.num_tokens)

        workers = args.workers if args.workers > 1 else 0
        for problem in check(args.meta, workers=workers, on_line=count, **settings):
            severities[problem.severity] += 1
            kinds[problem.kind] += 1
            if kinds[problem.kind] <= args.show:
                bar.write(str(problem))
    for kind, number in kinds.items():
        if number > args.show:
            print(f"{number - args.show} more of the kind: {kind}")

    print(
        f"{counts['items']} items, {counts['intervals']} intervals ({counts['clamped']} reach "
        f"beyond their video), {severities[ERROR]} errors, {severities[WARNING]} warnings"
    )
    if lengths:
        print(histogram(lengths))
    return int(severities[ERROR] > 0)


def histogram(lengths: Sequence[int], bins: int = 32) -> str:
    """Return one line that shows how lengths in tokens are spread."""
    lengths = np.asarray(lengths)
    low, high = lengths.min(), lengths.max()
    heights, _ = np.histogram(lengths, bins=min(bins, int(high - low) + 1))
    blocks = np.array(list(" ▁▂▃▄▅▆▇█"))
    bar = "".join(blocks[np.ceil(heights / heights.max() * 8).astype(int)])
    middle, most = np.percentile(lengths, [50, 95])
    return f"tokens: {low} |{bar}| {high}, median {middle:.0f}, 95 % up to {most:.0f}"
