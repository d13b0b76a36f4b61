"""Fine-tune a model in one process; shell/distime/*.sh do it on many.

Example:
    distime train --model_name_or_path checkpoint/base --meta_path train.json --output_dir out

The flags are those of `python -m distime.train.finetune --help`.
"""

from __future__ import annotations

import argparse

TAKES_OTHER_FLAGS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: every flag is handed to the fine-tuning entry point."""


def run(args: argparse.Namespace) -> int:
    """Fine-tune and return the exit code."""
    from distime.train.finetune import main

    return main(args.flags)
