"""Serve a page to try a checkpoint on: drop a video, ask, see the answer on a timeline.

distime demo --checkpoint CHECKPOINT                                    http://127.0.0.1:7860
distime demo --checkpoint CHECKPOINT --host 0.0.0.0 --port 8000         for the whole network

Needs gradio: pip install -r requirements-demo.txt. The page has no password: who can reach it can
use the model, but no file of the machine apart from their own uploads and the examples.
"""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from distime.cli.shared_flags import add_frame_arguments, add_model_arguments, load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime demo``."""
    add_model_arguments(parser)
    add_frame_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="(the first free one from 7860)")
    parser.add_argument(
        "--max-megabytes", type=int, default=200, metavar="N", help="largest upload (200)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=3600, metavar="N", help="longest video (3600)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=1000, metavar="N", help="longest answer (1000)"
    )
    parser.add_argument(
        "--examples", type=int, default=3, metavar="N", help="synthetic example videos (3)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from distime.serve.demo.page import import_gradio, serving
    from distime.serve.demo.responder import DemoLimits

    import_gradio()  # say that it is missing before the checkpoint is loaded
    limits = DemoLimits(args.max_megabytes, args.max_seconds, args.max_new_tokens)
    options = {"host": args.host, "port": args.port, "num_examples": args.examples}
    options["checkpoint"] = Path(args.checkpoint).resolve().name
    with serving(load_model(args), limits=limits, **options) as address:
        print(f"serving on {address} (stop with Ctrl-C)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")
    return 0
