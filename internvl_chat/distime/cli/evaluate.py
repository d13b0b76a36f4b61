"""Evaluate a checkpoint on a benchmark: answer its queries, write the results, print the metric.

distime evaluate BENCHMARK --checkpoint checkpoint/mine
distime evaluate BENCHMARK 1 --checkpoint checkpoint/mine     (in stages: then the same with 2)

Several processes: GPUS=8 sh internvl_chat/evaluate.sh checkpoint/mine BENCHMARK. A killed run goes
on where it stopped when it is started again. See docs/EVALUATION.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from distime.cli.benchmark_file import (
    add_score_options,
    read_benchmark_file,
    split_score_options,
)
from distime.errors import DisTimeError
from distime.evaluate.settings import Settings

TYPES = {"int": int, "float": float, "Path": Path, "str": str}


before_parsing = read_benchmark_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime evaluate``: the fields of `Settings`."""
    for option in Settings.options():
        if option.name == "score_options":
            continue  # a flag for each, below
        help_text = option.metadata["help"]
        common: dict[str, Any] = {"help": help_text, "default": argparse.SUPPRESS}
        flag = "--" + option.name.replace("_", "-")
        kind = TYPES.get(option.type.split(" ")[0])
        if option.name == "benchmark":
            parser.add_argument(option.name, help=help_text)
        elif option.name == "stage":
            parser.add_argument(option.name, nargs="?", type=int, help=help_text)
        elif option.type == "bool" and "choices" not in option.metadata:
            action = "store_false" if option.default else "store_true"
            name = flag if action == "store_true" else "--no-" + flag[2:]
            parser.add_argument(name, dest=option.name, action=action, **common)
        else:
            default = "on" if option.default is True else option.default
            if default is not None and "(" not in help_text:
                common["help"] += f" ({default})"
            choices = option.metadata.get("choices")
            flags = dict.fromkeys((flag, f"--{option.name}"))  # with dashes or underscores
            parser.add_argument(*flags, type=kind or str, choices=choices, **common)
    add_score_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the evaluation; return 0, or 1 with a message where it is not a success."""
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:
        logging.getLogger().setLevel(logging.WARNING)
    values = split_score_options(vars(args))
    if "share_prefix" in values:
        values["share_prefix"] = values["share_prefix"] == "on"
    try:
        settings = Settings(**values)
        # What runs needs torch; what does not fit is refused before that is imported.
        from transformers.utils.logging import disable_progress_bar

        from distime.evaluate.runner import run as evaluate

        if not is_first:
            disable_progress_bar()
        result = evaluate(settings)
    except DisTimeError as error:
        if is_first:
            print(f"error: {error}", file=sys.stderr)
        return 1
    if is_first:
        if result.score is not None:
            print(result.score.table())
        print(f"wrote {result.path}")
        if result.problem:
            print(f"error: {result.problem}", file=sys.stderr)
    return int(bool(result.problem))
