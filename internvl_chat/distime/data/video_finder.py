"""Finding a video by the name that an annotation gives it, however a data set was unpacked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")


class VideoFinder:
    """Finds videos by name: where the name says below a root, or in a folder below that.

    Data sets are unpacked in many ways: `1101/x` may be `NExTVideo/1101/x.mp4`. The folders of
    the name must all be there, so that a video of the same name in another data set is not taken.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path):
        self.root = root

    def find(self, name: str) -> Path:
        """Return the path of a video file, gif or folder of frames.

        A video that is not there has the path where it was expected.
        """
        exact = self.root / name
        if exact.exists():
            return exact
        bare = without_suffix(exact.name)
        with_suffix = [exact.with_name(bare + suffix) for suffix in SUFFIXES]
        for path in with_suffix:
            if path.is_file():
                return path
        folders = Path(name).parent.parts
        for path in self._by_name.get(bare, ()):
            parts = iter(path.relative_to(self.root).parent.parts)
            if all(folder in parts for folder in folders):  # in this order
                return path
        return exact if exact.name != bare else with_suffix[0]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(without_suffix(path.name), []).append(path)
        return found


def without_suffix(name: str) -> str:
    """Cut off the suffix of a video file, but no other: names may contain dots."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name
