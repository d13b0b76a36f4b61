"""The ``distime`` command: one module per sub-command, imported only when it is called.

A sub-command module has a docstring (its help text), ``add_arguments(parser)`` and
``run(args) -> int`` (the exit code). One whose flags depend on a file that a flag names also has
``before_parsing(argv)``. It is listed in ``COMMANDS`` and nowhere else. Its ``SUBCOMMANDS``, if it
has any, are second words of the command with the modules that they are.

Exit codes: 0 all went well; 1 something did not, and a line on stderr says what; 2 wrong usage;
130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from distime import __version__
from distime.errors import DisTimeError

COMMANDS = {
    "annotate": "make training data from raw videos",
    "caption": "list the events of videos with their times",
    "chat": "ask anything about a video",
    "check": "check training data: files, turns, intervals, lengths in tokens",
    "completion": "print a completion script for a shell",
    "convert": "convert a checkpoint between our layout and the published one",
    "demo": "serve a page to try a checkpoint on",
    "evaluate": "answer the queries of a benchmark and score the answers",
    "ground": "find when something happens in videos",
    "merge": "merge an adapter into its base checkpoint",
    "prepare": "convert official annotation files and check them",
    "quickstart": "make videos, train a tiny model, evaluate it and draw an answer",
    "report": "collect the scores of a results folder into one table",
    "serve": "answer over HTTP: OpenAI's chat routes, and events in seconds",
    "score": "score a prediction file of a benchmark",
    "tiny": "write a tiny model with random weights on any backbone",
    "train": "fine-tune a model",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``distime COMMAND ...`` and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="distime",
        description="Video large language models that say when.",
        epilog="\n".join(
            ["commands:", *(f"  {name:<12}{text}" for name, text in COMMANDS.items())]
            + ["", "distime COMMAND --help says more."]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"distime {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    # Only the chosen command is imported, so that `distime score` never waits for torch.
    command = parser.parse_args(argv[:1]).command
    module = importlib.import_module(f"distime.cli.{command}")
    if (second := "".join(argv[1:2])) in (deeper := getattr(module, "SUBCOMMANDS", {})):
        module = importlib.import_module(deeper[second])
        command, argv = f"{command} {second}", argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("distime").setLevel(logging.INFO)
    if hasattr(sys.stdout, "reconfigure"):
        # Names of files may be no text; stderr writes them as this does.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if hasattr(module, "before_parsing"):
            module.before_parsing(argv[1:])
        parser = command_parser(command, module)
        if getattr(module, "TAKES_OTHER_FLAGS", False):
            args, args.flags = parser.parse_known_args(argv[1:])
        else:
            # Flags may stand between the names of files.
            args = parser.parse_intermixed_args(argv[1:])
        code = module.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read stdout, `head` for instance, has seen enough; closing it must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (DisTimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def all_parsers(command: str) -> list[argparse.ArgumentParser]:
    """Return the parser of a sub-command, and those of its own sub-commands."""
    module = importlib.import_module(f"distime.cli.{command}")
    deeper = getattr(module, "SUBCOMMANDS", {}).items()
    return [command_parser(command, module)] + [
        command_parser(f"{command} {second}", importlib.import_module(name))
        for second, name in deeper
    ]


def command_parser(command: str, module: ModuleType) -> argparse.ArgumentParser:
    """Return the parser of a sub-command's arguments."""
    parser = argparse.ArgumentParser(
        prog=f"distime {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
