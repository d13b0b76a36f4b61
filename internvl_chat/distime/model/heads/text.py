"""Times as digits in the text, as other video language models write them: the baseline.

No token and no module knows of time: the frames' times, those of answers and those in questions are
words, in seconds. In `Answer.text` an interval is `<TIME_STAMP>` all the same, so that whatever
reads answers need not know how the model wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from distime.model.heads.base import TimeHead
from distime.model.tokens import TIME_STAMP

_NUMBER = r"(\d+(?:\.\d+)?)"
_UNIT = r"(?:seconds?|secs?|s)\b"
_INTERVAL = re.compile(
    rf"(?<![\d.]){_NUMBER}\s*(?:{_UNIT}\s*)?(?:-|–|to\b)\s*{_NUMBER}\s*{_UNIT}", re.IGNORECASE
)
_UNFINISHED = re.compile(
    r"(?<![\d.])\d+(?:\.\d*)?\s*(?:s[a-z]*\s*)?(?:(?:-|–|to?\b)\s*)?"
    r"(?:\d+(?:\.\d*)?\s*)?(?:s[a-z]*)?$",
    re.IGNORECASE,
)


class TextHead(TimeHead):
    """Intervals as "12.5 - 30.0 seconds", which every parser of published benchmarks reads too."""

    in_words = True
    how = (
        'A time in its answer is written in\ndigits, as in "12.5 - 30.0 seconds", and so are the '
        "times of the frames that it is shown."
    )

    def encoder(self, width: int) -> None:
        """None: frames' times are words as well."""

    def decoder(self, width: int) -> None:
        """None."""

    @classmethod
    def written(cls, start: float, end: float) -> str:
        """To a tenth of a second."""
        return f"{start:.1f} - {end:.1f} seconds"

    @classmethod
    def written_moment(cls, time: float) -> str:
        """To a tenth of a second."""
        return f"{time:.1f} seconds"

    @classmethod
    def read(cls, text: str) -> tuple[str, Sequence[tuple[float, float]]]:
        """Find "A - B seconds"; "to", "s" and a unit behind A are understood as well."""
        found = [(float(one[1]), float(one[2])) for one in _INTERVAL.finditer(text)]
        return _INTERVAL.sub(TIME_STAMP, text), found

    @classmethod
    def settled(cls, text: str) -> str:
        """The text without the beginning of an interval at its end."""
        whole = [one.end() for one in _INTERVAL.finditer(text) if one.end() < len(text)]
        last = max(whole, default=0)
        return text[:last] + _UNFINISHED.sub("", text[last:])


HEAD = TextHead
