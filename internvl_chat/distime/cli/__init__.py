"""The ``distime`` command: one module per sub-command, imported only when it is called.

A sub-command module has a docstring (its help text), ``add_arguments(parser)`` and
``run(args) -> int`` (the exit code). It is listed in ``COMMANDS`` and nowhere else.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

COMMANDS = {
    "check": "check training data: files, turns, intervals, lengths in tokens",
    "score": "score a prediction file of a benchmark",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``distime COMMAND ...`` and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="distime",
        description="Video large language models that say when.",
        epilog="\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    # Only the chosen command is imported, so that `distime score` never waits for torch.
    command = parser.parse_args(argv[:1]).command
    module = importlib.import_module(f"distime.cli.{command}")
    command_parser = argparse.ArgumentParser(
        prog=f"distime {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(command_parser)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return module.run(command_parser.parse_args(argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
