"""Merge an adapter into its base checkpoint.

distime merge checkpoint/InternVL2_5-1B out/adapter merged/

BASE is the checkpoint that training started from, ADAPTER what --export adapter wrote or a
checkpoint-N folder of a run that trained a part of the model, DST the full model: the same that
--export full writes. Every command also takes an ADAPTER folder as it is, as long as its base is
where it was during training.

A published checkpoint that is still wrapped in LoRA holds its own base: `distime convert SRC DST`
merges it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distime.conversion_target import ConvertError, check_target
from distime.model.hub import local_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime merge``."""
    parser.add_argument("base", metavar="BASE", type=Path, help="folder of a checkpoint")
    parser.add_argument("adapter", metavar="ADAPTER", type=Path, help="folder of an adapter of it")
    parser.add_argument("target", metavar="DST", type=Path, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint in DST")


def run(args: argparse.Namespace) -> int:
    """Merge, and print what was written.

    Raises:
        HubError: BASE or ADAPTER is not there.
        ConvertError: ADAPTER is not an adapter, or DST must not be replaced.
        CheckpointError: the adapter was trained on another base.
    """
    for folder in (args.base, args.adapter):
        local_folder(folder)
    check_target(args.adapter, args.target, args.overwrite)
    # Importing torch takes seconds, for which neither `--help` nor a typo must wait.
    from distime.conversion import convert
    from distime.model.adapter import is_adapter

    if not is_adapter(args.adapter):
        raise ConvertError(
            f"{args.adapter} has no adapter_config.json, so it is no adapter; a published "
            "checkpoint with LoRA is merged by `distime convert SRC DST`"
        )
    convert(args.adapter, args.target, overwrite=args.overwrite, adapter_base=args.base)
    print(f"wrote {args.target}: {args.adapter} merged into {args.base}")
    return 0
