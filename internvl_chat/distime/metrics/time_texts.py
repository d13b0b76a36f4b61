"""Times that models write into text, as the scorers of published benchmarks read them.

`PARSERS` has each by a name that says what it looks for. Every parser takes a text and returns
``[(start, end), ...]`` in seconds, in the order of the text unless it says otherwise; an empty list
where nothing is read. Their defects are kept, because published numbers depend on them: times are
best written as "12.5 - 30.0 seconds", which all of them read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from distime.metrics.intervals import Interval

Parser = Callable[[str], list[Interval]]


def clock_then_range(text: str) -> list[Interval]:
    """Clock times; else ``A - B``; else ``A to B``; else any numbers, paired (TimeLens).

    The first that yields a pair decides. Signs are lost, and a unit that touches its number cuts
    it: ``10.5s to 20.5s`` is 10 to 20.
    """
    text = text.lower()
    number = r"(\d+\.?\d*)"
    clock = re.findall(r"\b(\d{1,2}:\d{2}:\d{2}(?:\.\d+)?|\d{1,2}:\d{2}(?:\.\d+)?)\b", text)
    if len(clock) > 1:
        return _paired([_seconds(one) for one in clock])
    for pattern in (rf"{number}\s*-\s*{number}", rf"{number}\s+to\s+{number}"):
        if found := re.findall(pattern, text):
            return [(float(start), float(end)) for start, end in found]
    return _paired([float(one) for one in re.findall(r"\b\d+\.?\d*\b", text)])


def last_range_in_words(text: str) -> list[Interval]:
    """The last ``A to B`` or ``A and B``, one blank each side, in small letters (Time-R1)."""
    found = re.findall(r"(\d+\.?\d*) (?:to|and) (\d+\.?\d*)", text)
    return [(float(found[-1][0]), float(found[-1][1]))] if found else []


def signed_pairs(text: str) -> list[Interval]:
    """``[A, B]``; else ``A - B`` or ``A to B``; else numbers, paired; all signed (TimeLens2)."""
    number = r"([-+]?\d+(?:\.\d+)?)"
    for pattern, source in (
        (rf"\[\s*{number}\s*,\s*{number}\s*\]", text),
        (rf"{number}\s*(?:-|to)\s*{number}", text.lower()),
    ):
        if found := re.findall(pattern, source):
            return [(float(start), float(end)) for start, end in found]
    return _paired([float(one) for one in re.findall(number, text)])


def all_numbers(text: str) -> list[Interval]:
    """Any numbers without sign, paired (UniTime)."""
    return _paired([float(one) for one in re.findall(r"\d+(?:\.\d+)?", text)])


def tagged_or_worded(text: str) -> list[Interval]:
    """``<time>A - B seconds</time>``; else ``A - B seconds``; else many forms at once (OMTG).

    The last are "starts at A and ends at B", "start is at A and the end is at B", "A to B", "A - B"
    without a unit and "[A, B]", each pair once. Clock times are read but in the last three. Sorted
    by start; only ends after starts count. Of "ends at 12" the first sign is read, 1.
    """
    number = r"\d+(?:\.\d+)?"
    clock = r"\d+(?::\d+(?:\.\d+)?)?(?:\.\d+)?"
    unit = r"(?:\s+seconds?)?"
    tagged = r"<time>(\S+?)\s*-\s*(\S+?)\s*seconds?</time>"
    with_unit = rf"({clock})\s*-\s*({clock})\s*seconds?"
    others = (
        rf"starts\s+at\s+(\S+?){unit}\s+and\s+ends\s+at\s+(\S+?){unit}",
        rf"start\s+is\s+at\s+(\S+?){unit}\s+and\s+(?:the\s+)?end\s+is\s+at\s+(\S+?){unit}",
        rf"({number})\s+to\s+({number})",
        rf"(?<!\d)({number})\s*-\s*({number})(?!\s*(?:seconds?|</time>))",
        rf"\[\s*({number})\s*,\s*({number})\s*\]",
    )
    for pattern in (tagged, with_unit):
        if found := _forwards(re.findall(pattern, text, re.IGNORECASE)):
            return sorted(found, key=lambda one: one[0])
    found = [pair for p in others for pair in _forwards(re.findall(p, text, re.IGNORECASE))]
    return list(dict.fromkeys(sorted(found, key=lambda one: one[0])))


def _forwards(pairs: list[tuple[str, str]]) -> list[Interval]:
    """Those that are times, at most hours, minutes and seconds, and end after they start."""
    read = []
    for start, end in pairs:
        if start.count(":") < 3 and end.count(":") < 3:
            with contextlib.suppress(ValueError):
                read.append((_seconds(start), _seconds(end)))
    return [(start, end) for start, end in read if end > start]


def ascending_ranges(text: str) -> list[Interval]:
    """``A - B``; else ``A to B``; else one number a sentence on start or end, paired (E.T. Chat).

    Each pair in ascending order. Signs are lost and brackets not read. Where something like
    ``12..5`` stands for a number the published scorer stops; here nothing is read.
    """
    text = text.lower()
    number = r"(\d+\.*\d*)"
    found = re.findall(rf"{number}\s*-\s*{number}", text)
    found = found or re.findall(rf"{number}\s* to \s*{number}", text)
    if not found:
        pieces = [one for one in re.split(r"[!?\n]", text) if re.search("start|end|happen", one)]
        first = [re.search(r"\b(?:\d+\.\d+|\d+)\b", piece) for piece in pieces]
        times = [match[0] for match in first if match]
        found = list(zip(times[::2], times[1::2], strict=False))
    try:
        return [_ascending(float(start), float(end)) for start, end in found]
    except ValueError:
        return []


def first_number(text: str) -> float | None:
    """The first number with its sign (E.T. Chat, highlights); None where there is none."""
    match = re.search(r"[-+]?\d*\.\d+|[-+]?\d+", text)
    return float(match[0]) if match else None


def captioned_ranges(text: str) -> list[tuple[Interval, str]]:
    """Times with what happens then (E.T. Chat, captions); each pair in ascending order.

    First all ``A - B``, with the text between them as captions; else "start time: A, end time: B"
    with "description: ..."; else the first line, or sentence, that can be read: a range, or one
    time, which gets 20 s on each side (one of 20 s and less: 40 s behind). Captions of five
    characters and less are dropped, and what is left over, of times or captions, is cut.
    """
    try:
        events = _captioned_paragraph(text.lower())
    except ValueError:
        return []
    if not events:
        pieces = text.split("\n") if "\n" in text else [f"{one}." for one in text.split(".")]
        least = 8 if "\n" in text else 9  # the dot is not counted
        for piece in (one for one in pieces if len(one) >= least):
            parts = [part.strip(",") for part in piece.split("seconds")]
            with contextlib.suppress(ValueError):
                if span := _rough_time(parts[0]):
                    events = [(span, parts[-1].strip())]
                    break
    return [(_ascending(*span), caption) for span, caption in events]


def _captioned_paragraph(text: str) -> list[tuple[Interval, str]]:
    number = r"(\d+\.*\d*)"
    pattern = rf"{number}\s*-\s*{number}"
    captions: list[str] = []
    if found := re.findall(pattern, text):
        rest = text
        for match in re.finditer(pattern, text):
            rest = rest.replace(match[0], "\n")
        captions = rest.replace("seconds", "").split("\n")
    else:
        starts = re.findall(rf"start(?:ing)? time: {number}", text)
        ends = re.findall(rf"end(?:ing)? time: {number}", text)
        found = list(zip(starts, ends, strict=False))
        if found:
            captions = re.findall(r"description: (.*)", text) or re.findall(r"\*\s*(.*)", text)
        elif re.search(rf"start time {number}, end time {number}", text):
            raise ValueError("the published scorer stumbles over this form and reads nothing")
    times = [(float(start), float(end)) for start, end in found]
    captions = [one.strip().strip(", ").rstrip() for one in captions if len(one) > 5]
    return list(zip(times, captions, strict=False))


_AROUND = 20
"""Seconds on each side of a single time."""


def _rough_time(text: str) -> Interval | None:
    """The time that a piece of text names, rounded to 0.01 s; None where it names none.

    Raises:
        ValueError: it names too many, or what cannot be converted.
    """
    number = r"\d+\.*\d*"
    if found := re.findall(rf"({number})\s*-\s*({number})", text):
        start, end = map(float, found[0])
    elif text.count(":") in (1, 2):
        clocks = re.findall(rf"{number}:{number}", text)
        seconds = [60 * int(m) + int(s) for m, s in (clock.split(":")[:2] for clock in clocks)]
        if text.count(":") == 1 and seconds:
            seconds = _around(seconds[0])
        start, end = seconds
    else:
        times = [float(one) for one in re.findall(rf"{number}(?!\.)", text)]
        if not times:
            return None
        if len(times) > 2:
            raise ValueError("several numbers")
        start, end = times if len(times) == 2 else _around(times[0])
    return round(start, 2), round(end, 2)


def _around(time: float) -> Interval:
    if time > _AROUND:
        return time - _AROUND, time + _AROUND
    return time, time + 2 * _AROUND


def _ascending(start: float, end: float) -> Interval:
    return (start, end) if start <= end else (end, start)


MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"]
    + ["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)
"""Texts that pandas takes for no value: scorers that read tables with it never see them."""


def _paired(numbers: list[float]) -> list[Interval]:
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def _seconds(clock: str) -> float:
    seconds = 0.0
    for part in clock.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


PARSERS: dict[str, Parser] = {
    "clock, then range": clock_then_range,
    "last range in words": last_range_in_words,
    "signed pairs": signed_pairs,
    "all numbers": all_numbers,
    "tagged or worded": tagged_or_worded,
    "ascending ranges": ascending_ranges,
}
"""Every parser by name."""
