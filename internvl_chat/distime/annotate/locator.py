"""The interface of locators: when the events of a video happen."""

from __future__ import annotations

import math
from typing import ClassVar

from distime.annotate.annotator import Annotator
from distime.annotate.records import EventText, Located, Location


class Locator(Annotator):
    """Answers a clip, whose events are known, with a `Located`."""

    stage: ClassVar[str] = "locations"
    record: ClassVar[type[Located]] = Located


def rounded(start: float, end: float, confidence: float | None, duration: float) -> Location | None:
    """Return a location inside of the video, to the millisecond; None for one without length.

    Args:
        start, end: seconds, in order.
        confidence: 0 to 1; None or NaN where nobody knows.
        duration: of the video, in seconds.
    """
    start, end = (round(min(max(time, 0.0), duration), 3) for time in (start, end))
    if not start < end:
        return None
    is_known = confidence is not None and math.isfinite(confidence)
    return Location(start, end, round(confidence, 4) if is_known else None)


def not_found(missing: list[EventText], total: int, why: str) -> list[str]:
    """Say of how many events there is no location, and of which first; nothing where of none."""
    if not missing:
        return []
    return [f"{len(missing)} of {total} events have no location: {why}, first: {missing[0].text}"]
