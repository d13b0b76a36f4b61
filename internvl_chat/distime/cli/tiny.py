"""Write a tiny model with random weights on any backbone, with its processor.

A hundred thousand parameters, a few hundred kilobytes: for tests, and for trying out a command or a
change. Everything but its size is the real thing. (The quickstart trains one three times as wide.)

Example:
    distime tiny internvl tiny/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distime.model.heads import DEFAULT_HEAD, HEAD_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``distime tiny``."""
    parser.add_argument("backbone", metavar="BACKBONE", help="such as internvl")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write, empty or new")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (0)")
    parser.add_argument(
        "--time-head", default=DEFAULT_HEAD, choices=HEAD_NAMES, help="how it says when"
    )
    parser.add_argument(
        "--words", type=Path, metavar="FILE", help="text whose words it knows (those of quickstart)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the model and say where and how large."""
    from distime.toy.curriculum import words
    from distime.toy.tiny import TinyError, write_tiny_checkpoint

    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise TinyError(f"{args.out} is not an empty folder: choose another one")
    texts = words() if args.words is None else [args.words.read_text(encoding="utf-8")]
    sizes = {"hidden_size": 32, "num_layers": 2}
    write_tiny_checkpoint(
        args.out, texts, seed=args.seed, backbone=args.backbone, time_head=args.time_head, **sizes
    )
    size = sum(file.stat().st_size for file in args.out.rglob("*"))
    print(f"wrote {args.out}: a tiny {args.backbone} ({size / 1e3:.0f} kB)")
    return 0
