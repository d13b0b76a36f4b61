"""Flags from the fields of a dataclass of settings: name, default and help stand there alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any

TYPES = {"int": int, "float": float, "Path": Path, "str": str}


def add_settings(
    parser: argparse.ArgumentParser,
    options: Sequence[Field],
    positional: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add a flag for each field, with dashes or underscores; those not given are absent.

    Args:
        parser: to add to.
        options: the fields; `metadata` has "help", and "choices" where there are some.
        positional: which of them are no flags, with their options for argparse.
    """
    for option in options:
        help_text = option.metadata["help"]
        common: dict[str, Any] = {"help": help_text, "default": argparse.SUPPRESS}
        flag = "--" + option.name.replace("_", "-")
        kind = TYPES.get(option.type.split(" ")[0])
        if option.name in positional:
            parser.add_argument(option.name, help=help_text, **positional[option.name])
        elif option.type == "bool" and "choices" not in option.metadata:
            action = "store_false" if option.default else "store_true"
            name = flag if action == "store_true" else "--no-" + flag[2:]
            parser.add_argument(name, dest=option.name, action=action, **common)
        else:
            default = "on" if option.default is True else option.default
            if default not in (None, ()) and "(" not in help_text:
                common["help"] += f" ({default})"
            if option.type.startswith("tuple"):
                common["action"] = "append"
            choices = option.metadata.get("choices")
            flags = dict.fromkeys((flag, f"--{option.name}"))
            parser.add_argument(*flags, type=kind or str, choices=choices, **common)
