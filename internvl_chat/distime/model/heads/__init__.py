"""Time heads: the ways in which a model says when. One file each, found by its name.

A new one is a new file here, with a subclass of `distime.model.heads.base.TimeHead` that it calls
`HEAD`; `--time_head` takes the file's name. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from distime.errors import DisTimeError
from distime.files import read_json

if TYPE_CHECKING:
    from distime.model.heads.base import TimeHead

DEFAULT_HEAD = "distribution"
"""As published, and what checkpoints have that do not say."""
HEAD_NAMES = (
    DEFAULT_HEAD,
    *sorted({one.name for one in pkgutil.iter_modules(__path__)} - {"base", DEFAULT_HEAD}),
)
"""All that there are."""


class HeadError(DisTimeError):
    """A checkpoint has another time head than is asked for, or an unknown one; says what to do."""


def head_class(name: str) -> type[TimeHead]:
    """The time head of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in HEAD_NAMES:
        raise ValueError(f"time_head must be one of {', '.join(HEAD_NAMES)}, got {name!r}")
    return importlib.import_module(f"{__name__}.{name}").HEAD


def saved_head(folder: Path) -> str | None:
    """The time head of a checkpoint or adapter; None of a base model, which has none yet.

    Raises:
        FileError: its configuration cannot be read.
        HeadError: it names a head that does not exist.
    """
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        record, described = folder / "distime_adapter.json", read_json(adapter, "adapter")[0]
        said = read_json(record, "adapter")[0] if record.is_file() else {}
        base = Path(described.get("base_model_name_or_path") or "")
        return said.get("config_overrides", {}).get("time_head") or (
            saved_head(base) if (base / "config.json").is_file() else None
        )
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json", "configuration of the model")[0]
    if not isinstance(config, dict):
        return None  # whoever reads the model says so
    name = config.get("time_head", DEFAULT_HEAD)
    if name not in HEAD_NAMES:
        raise HeadError(
            f"{folder / 'config.json'}: unknown time_head {name!r}; there are "
            f"{', '.join(HEAD_NAMES)}: write the one that the checkpoint was trained with"
        )
    is_ours = "time_token_id" in config or "dec_reg" in config  # by its name as published
    return name if is_ours else None


def refuse_other_head(folder: Path, asked: str) -> None:
    """Check that a model with a head can start from a checkpoint: its own, a base model, or one
    whose times are words and that has no modules of time, so that they start fresh.

    Raises:
        HeadError: the checkpoint has the trained modules of another head.
        FileError: its configuration cannot be read.
    """
    saved = saved_head(folder)
    if saved in (None, asked) or head_class(saved).in_words:
        return
    raise HeadError(
        f"{folder} has the time head {saved}, whose weights fit no other such as {asked}: keep "
        "that one (leave out --time_head), or start from a base model"
    )
