"""What a conversion may write over; known before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from distime.errors import DisTimeError


class ConvertError(DisTimeError):
    """A conversion between layouts is not possible; the message says why."""


def check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Refuse a folder that a conversion must not write to.

    Args:
        source: what is converted.
        target: where it goes.
        overwrite: replace a checkpoint that is there.

    Raises:
        ConvertError: the message says what is in the way, and the mend.
    """
    if target.resolve() == source.resolve() or target.resolve() in source.resolve().parents:
        raise ConvertError(f"{target} is or holds the source {source}: choose another folder")
    if target.exists() and not target.is_dir():
        raise ConvertError(f"{target} is a file: choose another name")
    if not target.exists() or not any(target.iterdir()):
        return
    if not overwrite:
        raise ConvertError(f"{target} is not empty: choose another folder or give --overwrite")
    if not (target / "config.json").is_file():
        raise ConvertError(
            f"{target} holds no checkpoint (no config.json), so --overwrite does not delete it: "
            "choose another folder"
        )
