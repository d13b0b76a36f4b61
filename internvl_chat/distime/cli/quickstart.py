"""Make synthetic videos, train a tiny DisTime on them, evaluate it and draw an answer.

Example:
    distime quickstart --output quickstart
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``distime quickstart``."""
    parser.add_argument("--output", type=Path, default=Path("quickstart"), help="folder to work in")
    parser.add_argument(
        "--backbone", default="internvl", help="what the tiny model is built on (internvl)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of videos, weights and order")


def run(args: argparse.Namespace) -> int:
    """Run the quickstart and print what it found."""
    from distime.toy.quickstart import EXPECTED_MIOU, QuickstartSettings, run

    result = run(args.output, QuickstartSettings(backbone=args.backbone, seed=args.seed))
    columns = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7")
    rows = {
        "trained": result.trained,
        "best constant answer": result.constant,
        "untrained": result.untrained,
    }
    print(f"\n{'held-out videos, percent':<28}" + "".join(f"{name:>9}" for name in columns))
    for name, metrics in rows.items():
        print(f"{name:<28}" + "".join(f"{metrics[column]:>9.1f}" for column in columns))
    print(f"{'answers to another question':<28}{result.wrong_question:>9.1f}")
    if args.backbone in EXPECTED_MIOU:
        low, high = EXPECTED_MIOU[args.backbone]
        print(f"\nto be expected: trained mIoU from {low} to {high}, by seed and by CPU")
    print("\n" + ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items()))
    print(f"picture: {result.picture}")
    summary = args.output / "summary.json"
    values = asdict(result) | {"picture": str(result.picture)}
    summary.write_text(json.dumps(values, indent=2) + "\n")
    print(f"numbers: {summary}")
    return 0
