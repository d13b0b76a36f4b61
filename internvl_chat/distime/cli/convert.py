"""Convert a checkpoint between our layout and the published one.

distime convert DisTime-InternVL2_5-1B ours/                   published -> ours
distime convert ours/ back/ --to published                     ours -> published
distime convert lora_checkpoint/ merged/                       LoRA is merged on the way

SRC is a base model, a published DisTime checkpoint (merged or with LoRA), or one of ours.
Every tensor keeps its bits and its dtype, except where LoRA is merged into it (what the published
layout packs into one has the widest dtype of its parts). DST appears only when it is complete and,
unless --no-verify, was read back and found equal to SRC; for that the weights are in memory twice.
An existing DST is replaced only with --overwrite, and only if it holds a checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distime.conversion_target import check_target
from distime.model.hub import local_folder

LAYOUTS = ("distime", "published")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime convert``."""
    parser.add_argument("source", metavar="SRC", type=Path, help="folder of a checkpoint")
    parser.add_argument("target", metavar="DST", type=Path, help="folder to write")
    parser.add_argument("--to", choices=LAYOUTS, default="distime", help="layout (distime)")
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint in DST")
    parser.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="of one file of weights (5GB)"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not read the result back")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the time modules and tokens a base model lacks (0)"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and print what was written.

    Raises:
        HubError: SRC is not there.
        ConvertError: DST must not be replaced, or does not read back equal.
    """
    local_folder(args.source)
    check_target(args.source, args.target, args.overwrite)
    # Importing torch takes seconds, for which neither `--help` nor a typo must wait.
    from distime.conversion import convert

    convert(
        args.source,
        args.target,
        args.to,
        overwrite=args.overwrite,
        verify=not args.no_verify,
        max_shard_size=args.max_shard_size,
        seed=args.seed,
    )
    size = sum(file.stat().st_size for file in args.target.rglob("*"))
    checked = "" if args.no_verify else ", read back and found equal to the source"
    print(f"wrote {args.target} in the {args.to} layout ({size / 1e9:.2f} GB){checked}")
    return 0
