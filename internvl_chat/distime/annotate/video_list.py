"""Which videos a run is about."""

from __future__ import annotations

import os
from pathlib import Path

from distime.benchmarks.base import SettingsError
from distime.data.video_finder import SUFFIXES

VIDEO_SUFFIXES = (*SUFFIXES, ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
"""How the names of videos end, in lower case."""


def list_videos(root: Path) -> tuple[list[str], list[str]]:
    """Return the videos below a folder, by their paths below it, in order.

    Hidden files and folders are left out.

    Returns:
        names, and those that are no text and so cannot stand in a file (as messages write them).

    Raises:
        SettingsError: there is no such folder, or no video in it.
    """
    if not root.is_dir():
        what = "is a file: give the folder that holds it" if root.exists() else "no such folder"
        raise SettingsError(f"VIDEOS {root}: {what}; give a folder of videos")
    names, unwritable = [], []
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in files:
            if file.startswith(".") or not file.lower().endswith(VIDEO_SUFFIXES):
                continue
            name = (Path(folder) / file).relative_to(root).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError:
                unwritable.append(os.fsencode(name).decode("utf-8", "backslashreplace"))
            else:
                names.append(name)
    if not names:
        raise SettingsError(
            f"VIDEOS {root}: there is no video below it; names of videos end in "
            f"{', '.join(VIDEO_SUFFIXES)}"
        )
    return sorted(names), sorted(unwritable)
