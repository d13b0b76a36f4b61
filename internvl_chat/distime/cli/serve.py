"""Serve a checkpoint over HTTP: OpenAI's chat routes, and one that answers in seconds.

distime serve --checkpoint CHECKPOINT                              http://127.0.0.1:8000
distime serve --checkpoint CHECKPOINT --root videos --port 9000    videos/ may be named by requests

Needs FastAPI and uvicorn: pip install "distime[serve]". The environment variable DISTIME_API_KEY,
if it is set, is the key that requests must bring. Videos are uploaded as data URLs, or named below
a --root; no other file is read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from distime.cli.shared_flags import (
    UsageError,
    add_frame_arguments,
    add_model_arguments,
    load_model,
)

API_KEY = "DISTIME_API_KEY"
"""Environment variable of the key that requests must bring."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``distime serve``."""
    add_model_arguments(parser)
    add_frame_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="(8000)")
    parser.add_argument(
        "--root",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder whose videos requests may name; can be given several times",
    )
    parser.add_argument(
        "--allow-remote", action="store_true", help="fetch videos from public addresses"
    )
    parser.add_argument("--model-name", metavar="NAME", help="(the checkpoint folder's name)")
    for flag, default, what in (
        ("--batch-size", 16, "questions answered at once"),
        ("--max-batch-tokens", 131_072, "tokens that keys and values are kept for"),
        ("--max-megabytes", 200, "largest video"),
        ("--max-new-tokens", 1000, "longest answer"),
        ("--max-waiting", 128, "unfinished requests; one more is answered 429"),
        ("--timeout", 300, "seconds until a request is given up"),
    ):
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{what} ({default})"
        )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; what runs then is finished."""
    from distime.serve.serve_settings import ServeSettings

    settings = ServeSettings(
        model_name=args.model_name or Path(args.checkpoint).resolve().name,
        roots=tuple(args.root),
        allow_remote=args.allow_remote,
        max_megabytes=args.max_megabytes,
        max_new_tokens=args.max_new_tokens,
        max_waiting=args.max_waiting,
        timeout=args.timeout,
        api_key=os.environ.get(API_KEY) or None,
    )
    for flag in ("batch_size", "max_batch_tokens"):
        if getattr(args, flag) < 1:
            raise UsageError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: give at least 1")
    try:
        import uvicorn

        from distime.serve.app import make_app
    except ImportError as error:
        raise UsageError(
            f'{error.name} is missing, which serving needs: pip install "distime[serve]"'
        ) from None
    model = load_model(args)
    model.engine.max_batch_tokens = args.max_batch_tokens
    uvicorn.run(
        make_app(model, settings),
        host=args.host,
        port=args.port,
        log_level="warning",
        timeout_graceful_shutdown=args.timeout,
    )
    return 0
