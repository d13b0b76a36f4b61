"""From what a captioning model writes to captions: one a line, or JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from distime.annotate.annotator import UnusableError
from distime.annotate.records import Caption
from distime.benchmarks.base import SettingsError
from distime.data.problems import show
from distime.files import read_text

PROMPT = (
    "These {frames} frames were taken from one video of {seconds} seconds, in order and evenly "
    "spread. List about {events} events that happen in the video, in order. Write each event on a "
    "line of its own, as one short sentence that says who does what and tells this event apart "
    "from the others. Write nothing else: no numbers, no times, no introduction."
)
"""What captioning models are asked; the wording is ours."""
FIELDS = ("frames", "seconds", "events")
MAX_WORDS = 60
"""More words than that are no caption of one event."""
KEYS = ("text", "caption", "event", "description", "sentence")
"""Under which of them objects hold their caption."""

_BULLET = re.compile(r"^\s*(?:[-*•·–]+|\(?\d{1,3}[.):]|#+|event\s+\d{1,3}\s*[:.)-])\s*", re.I)
_MARKUP = re.compile(r"<\|?/?\w+\|?>")
_THINKING = re.compile(r"<think>.*?</think>", re.S)
_INTRODUCTION = re.compile(r"^(here (is|are)|the following|sure\b|events?:?$)", re.I)


def read_prompt(path: Path | None) -> str:
    """Return the question for captioning models: that of a file, or ours.

    Raises:
        SettingsError: the file names an unknown field.
        FileError: the file cannot be read.
    """
    prompt = PROMPT if path is None else read_text(path, "prompt")
    try:
        prompt.format(**dict.fromkeys(FIELDS, 0))
    except (KeyError, IndexError, ValueError) as error:
        raise SettingsError(
            f"--prompt {path}: a field that is not known ({error}): write "
            f"{', '.join('{' + name + '}' for name in FIELDS)}, and {{{{ for a brace"
        ) from None
    return prompt


def read_captions(answer: str) -> tuple[list[Caption], list[str]]:
    """Read a model's answer.

    Args:
        answer: lines, with bullets or numbers or without; or a JSON list of texts or objects, or an
            object that holds one.

    Returns:
        the captions, and notes on what was no caption.

    Raises:
        UnusableError: there is no caption in it; quotes it.
    """
    text = _THINKING.sub("", answer).strip()
    pieces = _from_json(text)
    if pieces is None:
        pieces = [line for line in text.splitlines() if not line.strip().startswith("```")]
    captions, garbage = [], []
    for piece in filter(str.strip, pieces):
        caption = " ".join(_BULLET.sub("", piece).strip(" *_\"'`").split())
        if _INTRODUCTION.match(caption) and (caption.endswith(":") or len(pieces) > 1):
            continue
        (captions if is_caption(caption) else garbage).append(caption or piece)
    if not captions:
        raise UnusableError(f"no caption in the answer {show(answer)}")
    notes = []
    if garbage:
        total = len(garbage) + len(captions)
        notes = [f"{len(garbage)} of {total} lines are no captions, first: {show(garbage[0])}"]
    return [Caption(one) for one in captions], notes


def is_caption(text: str) -> bool:
    """Whether a text can be the words of an event: two to `MAX_WORDS` words, no markup.

    Scripts without spaces have no words to count: four of their letters do.
    """
    words = re.findall(r"[^\W\d_]+", text)
    is_long = len(words) >= 2 or sum(not letter.isascii() for letter in "".join(words)) >= 4
    return is_long and len(text.split()) <= MAX_WORDS and not _MARKUP.search(text)


def _from_json(text: str) -> list[str] | None:
    """Return the texts of a JSON answer, also one in a code fence; None if it is none."""
    fenced = re.search(r"```(?:json)?\s*(.*?)```", text, re.S)
    text = fenced[1].strip() if fenced else text
    if text[:1] not in "[{":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((one for one in value.values() if isinstance(one, list)), [value])
    return [_text_of(one) for one in value]


def _text_of(value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), "")
    return value if isinstance(value, str) else json.dumps(value)
