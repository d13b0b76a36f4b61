"""The one way from what a person calls a checkpoint to the folder that holds it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from distime.errors import DisTimeError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


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
