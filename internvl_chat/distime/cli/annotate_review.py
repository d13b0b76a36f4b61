"""Serve a page on which people accept, correct (by dragging) or reject the events of an annotation.

distime annotate review DIR                                  http://127.0.0.1:7870
distime annotate review DIR --host 0.0.0.0 --port 8000       for the whole network

Decisions are written to DIR/reviewed.jsonl at once; `distime annotate VIDEOS --out DIR --stages
dialogues` makes the training files again with them. Several people, also on several servers, never
undo each other's work without knowing. Nothing needs to be installed. The page has no password: who
can reach it can see the videos of this annotation, but no other file, and decide.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime annotate review``."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="--out of distime annotate")
    parser.add_argument("--videos", type=Path, help="folder of the videos, if it was moved")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7870, help="0 for any that is free (7870)")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from distime.serve.review.review_server import reviewing

    with reviewing(args.folder, args.videos, args.host, args.port) as address:
        print(f"serving on {address} (stop with Ctrl-C)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")
    return 0
