"""The one way from what a person calls a checkpoint to the folder that holds it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from distime.errors import DisTimeError

LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""How transformers loads from a folder: it asks no network, and runs no code that lies there."""

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_DESCRIPTIONS = ("config.json", "adapter_config.json", "adapter.json")


class HubError(DisTimeError):
    """A checkpoint is neither a folder nor to be had from the hub; the message says the mend."""


def local_folder(path: str | os.PathLike, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint, fetching it first where that is needed.

    Args:
        path: a folder. A name like "owner/model" that is no folder is fetched from the Hugging Face
            hub, or found among what was fetched before; a folder never needs a network.
        revision: branch, tag or commit on the hub.

    Raises:
        HubError: there is neither such a folder nor, within reach, such a name on the hub.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise HubError(f"{path} {why_no_checkpoint(folder)}")
    if not _NAME.fullmatch(str(path)):
        raise HubError(f"{path}: no such folder; give the folder of a checkpoint")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path), revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HubError(
            f"{path}: neither a folder nor to be had from the Hugging Face hub "
            f"({type(error).__name__}); give the folder of a checkpoint, or check name and network"
        ) from error


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model that can be loaded: a checkpoint, or an adapter of one."""
    return any((folder / name).is_file() for name in _DESCRIPTIONS)


def why_no_checkpoint(path: Path) -> str:
    """Say what a file, or a folder without config.json, is instead of a checkpoint.

    Returns:
        what it is and what to give instead, to follow its name in a message.
    """
    if not path.is_dir():
        if not path.exists():
            return "does not exist: give the folder of a checkpoint, the one with config.json in it"
        if path.name.lower().endswith(_ARCHIVES):
            return "is an archive: unpack it and give the folder with config.json in it"
        if (path.parent / "config.json").is_file():
            return f"is one file of a checkpoint: give its folder, {path.parent}"
        return "is a file: give the folder of a checkpoint, the one with config.json in it"
    names = sorted(file.name for file in path.iterdir())
    if not names:
        return "is an empty folder: give the folder of a checkpoint"
    if is_model(path) and "config.json" not in names:
        return (
            "is an adapter, a part of a model: write the whole model with "
            "`distime merge BASE ADAPTER DST` and give DST"
        )
    if any(name.startswith("global_step") or name == "zero_to_fp32.py" for name in names):
        return (
            "holds the state of a run under DeepSpeed: go on with it by --resume auto in its "
            "output folder, or give the folder that the finished run wrote"
        )
    inner = [name for name in names if is_model(path / name)]
    if inner:
        shown = ", ".join(str(path / name) for name in inner[:5])
        more = f" and {len(inner) - 5} more" if len(inner) > 5 else ""
        return f"holds checkpoints, but is none: give one of {shown}{more}"
    if archives := [name for name in names if name.lower().endswith(_ARCHIVES)]:
        return f"has no config.json, but the archive {archives[0]}: unpack it"
    if any(name.endswith(".gguf") for name in names):
        return "holds GGUF files, which are not read: give the original checkpoint"
    if any(name.endswith((".incomplete", ".part", ".crdownload", ".download")) for name in names):
        return "is an unfinished download: download it again"
    if any(name.endswith(_WEIGHTS) for name in names):
        return "has weights, but no config.json: download the whole checkpoint"
    return "has no config.json: give the folder of a checkpoint"
