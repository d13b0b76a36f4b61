"""Rows of questions with lettered options, and the share that is answered right.

Which option an answer names is read by `distime.metrics.choices`; an answer that names none, or
several, is wrong and counted as unread. The published scorers look for the answer's first word
*within* the right answer's first word, so that an empty answer counts as right;
``published=True`` reports that beside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distime.metrics.choices import UNKNOWN, Options, options_in, read_choice
from distime.values import expect


class ChoiceRow(NamedTuple):
    """One answered question."""

    answer: str
    truth: str
    task: str
    """What the row says of its question: the task it belongs to, or its id."""
    options: Options = UNKNOWN
    """What the question lists."""

    @property
    def chosen(self) -> str:
        """The letter that the answer names, in lower case, or '' where it is unread."""
        place = read_choice(self.answer, self.options)
        return "" if place is None else self.options.labels[place].lower()


def letter(text: str) -> str:
    """Return the letter that a right answer begins with, in lower case, or '' where it has none."""
    words = re.sub(r"^\W*answer\s*:", "", text.strip(), flags=re.IGNORECASE).split()
    first = re.sub(r"\W", "", words[0]).lower() if words else ""
    return first if len(first) == 1 and first.isalpha() else ""


def names_right_option(row: ChoiceRow) -> bool:
    """Whether the answer names the letter that the truth begins with."""
    return row.chosen == letter(row.truth) != ""


def unread_warning(unread: Sequence[str], total: int) -> list[str]:
    """Return what a reader must know of answers that name no option: a list of one line or none."""
    if not unread:
        return []
    first = " ".join(unread[0].split())[:60]
    return [
        f"{len(unread)} of {total} answers name no option, or several, and count as wrong; the "
        f"first is {first!r}."
    ]


def read_rows(value: Any, path: Path) -> list[ChoiceRow]:
    """Check rows of ``{"pred": text, "gt": text, "task_type": text}``.

    Where a row has its ``question``, the options listed there help to read the answer.

    Raises:
        FileError: there are none, or one is of another form.
    """
    problem = 'expected rows of {"pred", "gt", "task_type"}; is this another benchmark\'s file?'
    expect(isinstance(value, list) and value, str(path), problem)
    rows = []
    for number, row in enumerate(value, 1):
        fields = ("pred", "gt", "task_type")
        texts = [row.get(field) for field in fields] if isinstance(row, dict) else [None]
        expect(all(isinstance(text, str) for text in texts), f"{path}, row {number}", problem)
        rows.append(ChoiceRow(*texts, options_in(str(row.get("question", "")))))
    return rows


def empty_answers(rows: Sequence[ChoiceRow]) -> int:
    """How many answers have no words."""
    return sum(not row.answer.strip() for row in rows)


def percent(values: Iterable[float]) -> float:
    """The mean of shares, in percent."""
    values = list(values)
    return 100 * sum(values) / len(values)
