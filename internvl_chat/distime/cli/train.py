"""Fine-tune a model in one process; shell/distime/*.sh do it on many.

Example:
    distime train --model_name_or_path checkpoint/base --meta_path train.json --output_dir out

The flags of published scripts are taken too; see docs/TRAINING.md.
"""

from __future__ import annotations

import argparse
import sys

from distime.train import command_line
from distime.train.flags import ArgumentError

TAKES_OTHER_FLAGS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the flags, which are handed to the fine-tuning entry point as they are."""
    parser.epilog = command_line.help_text()
    parser.add_argument("--help_all", action="store_true", help="also list transformers' flags")


def run(args: argparse.Namespace) -> int:
    """Fine-tune and return the exit code."""
    try:
        words, _ = command_line.check(args.flags)  # before torch is imported
        command_line.check_required(words)
    except ArgumentError as error:
        if not args.help_all:
            print(f"error: {error}", file=sys.stderr)
            return 2
    from distime.train.finetune import main

    return main(["--help"] if args.help_all else args.flags)
