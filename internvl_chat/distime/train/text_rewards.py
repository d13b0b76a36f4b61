"""Rewards of an answer's words, beside those of its intervals in `distime.train.rewards`.

Each is a pure function that names what it looks at: `text` and `true_text` (words, `<TIME_STAMP>`
where a time is named), `predicted` and `truth` (intervals in seconds), `finished` (whether the
answer ended by itself).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from distime.model.tokens import TIME_STAMP
from distime.train.rewards import Intervals


def well_formed(predicted: Intervals, truth: Intervals, finished: bool) -> float:
    """Whether an answer ended, names times just where the truth does, and none backwards.

    An answer of ours is words with times in them; there is no thinking and there are no tags, so
    this is all that its format asks.
    """
    names_times = bool(predicted) == bool(truth)
    return float(finished and names_times and all(end > start for start, end in predicted))


def text_equal(text: str, true_text: str) -> float:
    """Whether the words are the true ones, times and punctuation left out, case ignored."""
    return float(_words(text) == _words(true_text))


def word_f1(text: str, true_text: str) -> float:
    """F1 of the words as a bag, in [0, 1]; two answers without words agree (SQuAD's F1)."""
    mine, theirs = _words(text), _words(true_text)
    if not mine or not theirs:
        return float(mine == theirs)
    return 2 * (Counter(mine) & Counter(theirs)).total() / (len(mine) + len(theirs))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.replace(TIME_STAMP, " ").lower())


TEXT_REWARDS: dict[str, Callable[..., float]] = {
    "format": well_formed,
    "text_equal": text_equal,
    "word_f1": word_f1,
}
"""The rewards of words by name."""
