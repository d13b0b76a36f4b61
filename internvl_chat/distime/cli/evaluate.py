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

from distime.cli.benchmark_file import (
    add_score_options,
    read_benchmark_file,
    split_score_options,
)
from distime.cli.settings_flags import add_settings
from distime.errors import DisTimeError
from distime.evaluate.settings import Settings

POSITIONAL = {"benchmark": {}, "stage": {"nargs": "?", "type": int}}


before_parsing = read_benchmark_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime evaluate``: the fields of `Settings`."""
    own = [option for option in Settings.options() if option.name != "score_options"]
    add_settings(parser, own, positional=POSITIONAL)
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
