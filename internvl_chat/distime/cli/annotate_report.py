"""Write a page about an annotation: one file that can be sent.

distime annotate report DIR
distime annotate report DIR --examples 20 --output page.html

It shows counts, durations, where events are and how long, how sure the locators are and whether
they agree, words, what was dropped and why, and the events of the worst agreement with frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distime.values import expect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime annotate report``."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="--out of distime annotate")
    parser.add_argument(
        "--examples", type=int, default=8, metavar="N", help="kept and dropped events to show (8)"
    )
    parser.add_argument("--videos", type=Path, help="folder of the videos, if it was moved")
    parser.add_argument("--output", type=Path, help="of the page (DIR/report.html)")


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    # Pages need numpy and the decoder.
    from distime.show.annotation_page import write_annotation_page

    expect(args.examples >= 0, f"--examples {args.examples}", "give 0 or more.")
    page = write_annotation_page(
        args.folder, examples=args.examples, videos=args.videos, path=args.output
    )
    print(f"wrote {page}")
    return 0
