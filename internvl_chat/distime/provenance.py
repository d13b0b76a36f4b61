"""What a result was made with: versions and the commit of the code."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

PACKAGES = ("distime", "torch", "transformers", "av", "numpy", "pillow")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of packages, threads, and the GPU where there is one."""
    found = {"python": platform.python_version(), "threads": str(torch.get_num_threads())}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that this package lies in, or None if it lies in none.

    Changes of tracked files since that commit are told by a "+" at its end.
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", "provenance.py"):
            return None  # an installed package below someone else's repository
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
