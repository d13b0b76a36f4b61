"""Make grounded training data from raw videos: what happens in them, when, and what to keep of it.

distime annotate VIDEOS --out DIR --captioner model:FOLDER --locator distime:CHECKPOINT
distime annotate VIDEOS --out DIR --captioner file:captions.jsonl --locator distime:CHECKPOINT \\
    --locator clip:FOLDER --similarity FOLDER --min-agreement 0.5
distime annotate VIDEOS --out DIR --stages dialogues      again, after a review
distime annotate report DIR                               a page about it
distime annotate review DIR                               accept, correct or reject events

Several processes: GPUS=8 sh internvl_chat/annotate.sh VIDEOS --out DIR ... A killed run goes on
where it stopped when it is started again, on any number of processes. See docs/DATA_ENGINE.md.

Exit codes: 0 all went well; 1 something did not, a line says what; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import fields

from distime.annotate.annotation_settings import AnnotationSettings
from distime.cli.settings_flags import add_settings
from distime.errors import DisTimeError

SUBCOMMANDS = {
    "report": "distime.cli.annotate_report",
    "review": "distime.cli.annotate_review",
}
"""Second words of the command, and the modules of `distime.cli` that they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime annotate``: the fields of `AnnotationSettings`."""
    add_settings(parser, fields(AnnotationSettings), positional={"videos": {"metavar": "VIDEOS"}})


def run(args: argparse.Namespace) -> int:
    """Run the stages and print a summary; return 1 with a message where it is not a success."""
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:
        logging.getLogger().setLevel(logging.WARNING)
    values = vars(args)
    if "stages" in values:
        values["stages"] = [one for given in values["stages"] for one in given.split(",")]
    from distime.annotate.run import AnnotationRun, run_stages

    try:
        job = AnnotationRun(AnnotationSettings(**values))
    except DisTimeError as error:
        if is_first:  # the others find the same
            print(f"error: {error}", file=sys.stderr)
        return 1
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading; the stages have bars of their own
    report = run_stages(job)
    if not is_first:
        return 0
    print("\n".join(report.lines))
    if job.folder.problems.stat().st_size:
        print(f"problems   {job.folder.problems}")
    print(f"wrote {job.settings.out}")
    if report.failed > job.settings.max_failures:
        print(
            f"error: {report.failed} of {len(job.videos)} videos failed in a stage, more than "
            f"--max-failures {job.settings.max_failures}: {job.folder.problems} says why; run "
            "again to try them again",
            file=sys.stderr,
        )
        return 1
    return 0
