"""Times that models write into text, as the scorers of published benchmarks read them.

`PARSERS` has each by a name that says what it looks for. Every parser takes a text and returns
``[(start, end), ...]`` in seconds, in the order of the text unless it says otherwise; an empty list
where nothing is read. Their defects are kept, because published numbers depend on them: times are
best written as "12.5 - 30.0 seconds", which all of them read.
"""

from __future__ import annotations

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
    """``<time>A - B seconds</time>``; else ``A - B seconds``; else several forms (OMTG's).

    The last are "starts at A and ends at B", "start is at A and the end is at B", ``A to B``,
    ``A - B`` without unit and ``[A, B]``, together, sorted and without repeats. Clock times are
    read in the first two and where something starts. Only intervals that run forwards count.
    Behind "ends at" a single digit is read.
    """
    clock = r"(\d+(?::\d+)*(?:\.\d+)?)"
    number = r"(\d+(?:\.\d+)?)"
    for pattern in (
        rf"<time>\s*{clock}\s*-\s*{clock}\s*seconds?\s*</time>",
        rf"{clock}\s*-\s*{clock}\s*seconds?",
    ):
        found = [(_seconds(a), _seconds(b)) for a, b in re.findall(pattern, text, re.IGNORECASE)]
        if forwards := [(start, end) for start, end in found if end > start]:
            return forwards
    worded = (
        r"starts?\s+at\s+([\d:.]+)(?:\s*seconds?)?\s+and\s+ends?\s+at\s+([\d:.]+?)",
        r"start\s+is\s+at\s+([\d:.]+)(?:\s*seconds?)?\s+and\s+the\s+end\s+is\s+at\s+([\d:.]+?)",
    )
    plain = (
        rf"{number}\s+to\s+{number}",
        rf"{number}\s*-\s*{number}(?!\s*seconds?)",
        rf"\[\s*{number}\s*,\s*{number}\s*\]",
    )
    found = []
    for pattern in (*worded, *plain):
        for start, end in re.findall(pattern, text, re.IGNORECASE):
            try:
                found.append((_seconds(start), _seconds(end)))
            except ValueError:
                continue
    return sorted({(start, end) for start, end in found if end > start})


def range_then_sentences(text: str) -> list[Interval]:
    """``A - B``; else ``A to B``; else the first number of each sentence that says start or end.

    The last also looks for "happen", in pieces between exclamation marks, question marks and line
    ends, and pairs what it finds. Reversed intervals are turned round (E.T. Bench).
    """
    text = text.lower()
    number = r"(\d+\.*\d*)"
    for pattern in (rf"{number}\s*-\s*{number}", rf"{number}\s+to\s+{number}"):
        if found := re.findall(pattern, text):
            return [_forwards(_loose(start), _loose(end)) for start, end in found]
    numbers = []
    for piece in re.split(r"[!?\n]", text):
        if re.search("start|end|happen", piece) and (match := re.search(number, piece)):
            numbers.append(_loose(match[0]))
    return [_forwards(*pair) for pair in _paired(numbers)]


def _forwards(start: float, end: float) -> Interval:
    return min(start, end), max(start, end)


def _loose(text: str) -> float:
    """A number with any number of full stops in it, of which the first counts."""
    whole, _, fraction = text.partition(".")
    return float(f"{whole}.{fraction.replace('.', '') or '0'}")


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
    "range, then sentences": range_then_sentences,
}
"""Every parser by name."""
