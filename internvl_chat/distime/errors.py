"""The base of the package's own errors."""

from __future__ import annotations


class DisTimeError(ValueError):
    """Something that whoever called can mend: the message names the file, line or flag, and how.

    Commands print it as one line. Every other exception is a defect and keeps its traceback.
    """
