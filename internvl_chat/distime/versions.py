"""The releases of other libraries that this package was tested with, and a word about others.

Their ranges stand in requirements.txt and nowhere else; an installed package carries them in its
metadata.
"""

from __future__ import annotations

import logging
import os
import re
from importlib import metadata

from distime import paths
from distime.errors import DisTimeError

logger = logging.getLogger(__name__)

WATCHED = ("torch", "transformers", "peft")
"""Libraries whose releases break something every few weeks or months."""


class VersionError(DisTimeError):
    """A library is older than what this package can run on; the message says the mend."""


def requirements() -> list[str]:
    """Return the requirements, as `name>=floor,<ceiling`; those of extras say so behind a `;`."""
    # A checkout may be newer than the metadata of its editable install, or not installed at all.
    root = paths.checkout()
    listed = root.parent / "requirements.txt" if root else None
    if listed and listed.is_file():
        lines = listed.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]
    try:
        return metadata.requires("distime") or []
    except metadata.PackageNotFoundError:  # `internvl_chat/` alone, copied to somewhere
        return []


def untested(*, too_old: bool = False) -> list[str]:
    """Return one line for each watched library whose release is outside of the tested range.

    Args:
        too_old: only those below its lower end.
    """
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # transformers needs it too: then there is no model to load either
        return []
    lines = []
    for requirement in requirements():
        name, ranges = re.fullmatch(r"([\w.-]+)([^;]*).*", requirement).groups()
        if name not in WATCHED:
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # scores are computed without it
        bounds = [part for part in SpecifierSet(ranges) if not too_old or part.operator == ">="]
        if not all(bound.contains(version, prereleases=True) for bound in bounds):
            lines.append(
                f"{name} {version} is outside of what DisTime was tested with ({requirement}); "
                f"mend: pip install '{requirement}'"
            )
    return lines


def warn_about_untested() -> None:
    """Log what is outside of the tested ranges, from the first process of several."""
    if os.environ.get("RANK", "0") == "0":
        for line in untested():
            logger.warning("%s", line)


def refuse_too_old() -> None:
    """Stop before an import fails that says less.

    Raises:
        VersionError: a watched library is older than the oldest release that was tested.
    """
    if lines := untested(too_old=True):
        raise VersionError("\n".join(lines))
