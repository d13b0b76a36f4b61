"""Convert the official files of a data set to the annotations that evaluation and training read.

distime prepare NAME --source downloads/NAME --out internvl_chat/data_example/NAME
distime prepare NAME --source downloads --out annotations --video-root videos   (what is missing?)
distime prepare csv TABLE --out mine --video-root videos       (a table of yours)

Official files are looked for anywhere below --source; docs/EVALUATION.md says which and from
where. The exit code is 1 where the numbers differ from the published ones or a video is missing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from distime.benchmarks import official_data
from distime.cli.benchmark_file import add_benchmark_file, read_benchmark_file
from distime.data.csv_table import TableSettings, prepare_table
from distime.data.official import PrepareError, prepare
from distime.files import FileError

SHOWN = 10

TABLE_HELP = {
    "video": ("", "NAME"),
    "query": ("", "NAME"),
    "start": ("", "NAME"),
    "end": ("", "NAME"),
    "delimiter": ("what separates the columns, `tab` for a tab (the one that fits)", "CHARACTER"),
    "question": ("what is asked, with {query} in it (as the paper's evaluation asks)", "TEXT"),
    "held_out": ("share of the videos to keep for evaluation (0.1)", "SHARE"),
    "seed": ("of the choice of these videos (0)", "N"),
}
"""Flags of `prepare csv`: what they mean ('' for a column) and what they take."""


before_parsing = read_benchmark_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime prepare``."""
    parser.add_argument("name", metavar="NAME", help=", ".join(["csv", *official_data()]))
    parser.add_argument("table", nargs="?", type=Path, metavar="TABLE", help="with csv: your table")
    add_benchmark_file(parser)
    parser.add_argument("--source", type=Path, help="folder with official files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the annotations")
    parser.add_argument("--video-root", type=Path, help="look for the videos below this folder")
    parser.add_argument(
        "--available-only", action="store_true", help="leave out queries whose video is missing"
    )
    parser.add_argument(
        "--missing", type=Path, metavar="FILE", help="write the names of missing videos to a file"
    )
    table = parser.add_argument_group("with csv")
    for option in fields(TableSettings):
        what, names = TABLE_HELP[option.name]
        flag = "--" + option.name.replace("_", "-") + ("-column" if not what else "")
        what = what or f"name of the column with the {option.name} ({option.default})"
        kind = {"held_out": float, "seed": int}.get(option.name, str)
        table.add_argument(flag, dest=option.name, type=kind, metavar=names, help=what)


def run(args: argparse.Namespace) -> int:
    """Convert, print what came of it; return 1 where something is not as published."""
    given = {
        option.name: getattr(args, option.name)
        for option in fields(TableSettings)
        if getattr(args, option.name) is not None
    }
    if args.name == "csv":
        return _prepare_table(args, given)
    if args.table is not None or given:
        what = "the table" if args.table is not None else "--" + next(iter(given)).replace("_", "-")
        raise PrepareError(f"{what} belongs to `distime prepare csv`; leave it out")
    if args.source is None:
        raise PrepareError("--source: name the folder with the official files")
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


def _prepare_table(args: argparse.Namespace, given: dict[str, Any]) -> int:
    if args.table is None:
        raise PrepareError("csv: name the table, as in `distime prepare csv events.csv --out mine`")
    if args.source is not None or args.missing is not None:
        raise PrepareError("--source and --missing belong to official files; leave them out of csv")
    if given.get("delimiter") in ("tab", "\\t"):
        given["delimiter"] = "\t"
    settings = TableSettings(**given)
    made = prepare_table(args.table, args.out, settings, args.video_root, args.available_only)
    for path in made.files:
        print(f"wrote {path}")
    for note in made.notes[:SHOWN]:
        print(f"note: {note}")
    if len(made.notes) > SHOWN:
        print(f"note: ... and {len(made.notes) - SHOWN} more of these")
    if made.missing:
        print(f"left out: {made.missing} rows whose video is missing")
    print(
        f"{made.items} items with {made.intervals} intervals: {made.train_videos} videos to train, "
        f"{made.held_out_videos} held out"
    )
    return 0
