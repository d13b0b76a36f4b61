"""Convert the official files of a data set to the annotations that evaluation and training read.

distime prepare NAME --source downloads/NAME --out internvl_chat/data_example/NAME
distime prepare NAME --source downloads --out annotations --video-root videos   (what is missing?)

Official files are looked for anywhere below --source; docs/EVALUATION.md says which and from
where. The exit code is 1 where the numbers differ from the published ones or a video is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distime.benchmarks import official_data
from distime.cli.benchmark_file import add_benchmark_file, read_benchmark_file
from distime.data.official import PrepareError, prepare
from distime.files import FileError

SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime prepare``."""
    parser.add_argument("name", metavar="NAME", help=", ".join(official_data()))
    add_benchmark_file(parser)
    parser.add_argument("--source", type=Path, required=True, help="folder with official files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the annotations")
    parser.add_argument("--video-root", type=Path, help="look for the videos below this folder")
    parser.add_argument(
        "--available-only", action="store_true", help="leave out queries whose video is missing"
    )
    parser.add_argument(
        "--missing", type=Path, metavar="FILE", help="write the names of missing videos to a file"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, print what came of it; return 1 where something is not as published."""
    read_benchmark_file(args)
    known = official_data()
    if args.name not in known:
        raise PrepareError(f"{args.name}: choose one of {', '.join(known)}")
    try:
        report = prepare(
            known[args.name], args.source, args.out, args.video_root, args.available_only
        )
    except (PrepareError, FileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in report.files:
        print(f"wrote {path}")
    print(f"{report.queries} queries about {report.videos} videos")
    for reason, number in report.left_out.items():
        print(f"left out: {number} items with {reason}")
    for problem in report.problems:
        print(f"warning: {problem}")
    missing = report.missing or []
    if missing:
        names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        print(f"missing: {len(missing)} videos are not below {args.video_root}: {names}")
    if args.missing is not None:
        args.missing.write_text("".join(f"{name}\n" for name in missing), encoding="utf-8")
    return int(bool(report.problems or (missing and not args.available_only)))
