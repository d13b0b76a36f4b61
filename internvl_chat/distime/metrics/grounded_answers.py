"""Answers that must also point at the moment: right options, and spans within annotated locations.

IoP is the intersection over the *predicted* length. Question types are those of NExT-QA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from distime.metrics.intervals import Interval

THRESHOLDS = (0.3, 0.5)
GROUPS = {
    "CW": "Why",
    "CH": "How",
    "TN": "Bef&Aft",
    "TP": "Bef&Aft",
    "TC": "When",
    "DC": "Cnt",
    "DL": "Loc",
    "DO": "Other",
}
"""Question type in ``test.csv`` -> the name papers give it."""

Spans = Mapping[str, Interval]
"""``video_question`` -> predicted span in seconds."""


class Chosen(NamedTuple):
    """A chosen option and the right one, both as option numbers; -1 where none was read."""

    prediction: int
    answer: int
    published: int | None = None
    """What the published pattern reads, where that is something else."""


class Question(NamedTuple):
    """One question with its annotated locations; times in seconds."""

    key: str
    type: str
    locations: list[Interval]
    duration: float | None = None


def grounding(
    answers: Mapping[str, Chosen] | None, spans: Spans, questions: Sequence[Question]
) -> dict[str, float]:
    """Return Acc@GQA (where there are answers) and the IoP and IoU metrics, in percent."""
    overlaps = [
        best_overlap(spans[question.key], question.locations) if question.key in spans else (0, 0)
        for question in questions
    ]
    metrics = {}
    if answers is not None:
        metrics["Acc@GQA"] = _percent(
            [
                iop >= 0.5 and _is_right(answers, question)
                for question, (_, iop) in zip(questions, overlaps, strict=True)
            ]
        )
    for name, values in (("IoP", [p for _, p in overlaps]), ("IoU", [u for u, _ in overlaps])):
        metrics[f"m{name}"] = _percent(values)
        metrics |= {f"{name}@{t}": _percent([value >= t for value in values]) for t in THRESHOLDS}
    return metrics


def best_overlap(span: Interval, locations: Sequence[Interval]) -> tuple[float, float]:
    """Return the best IoU and, separately, the best IoP of a span, both in [0, 1].

    A span of no length has IoU 0, and IoP 1 if it lies within a location; a reversed one has 0.
    """
    start, end = span
    best_iou = best_iop = 0.0
    for a, b in locations:
        if start == end:
            best_iop = max(best_iop, float(a <= start <= b))
            continue
        common = min(b, end) - max(a, start)
        hull = max(b, end) - min(a, start)
        best_iou = max(best_iou, common / hull if hull > 0 else 0.0)
        best_iop = max(best_iop, common / (end - start) if end > start else 0.0)
    return best_iou, best_iop


def accuracy(answers: Mapping[str, Chosen], questions: Sequence[Question]) -> dict[str, float]:
    """Return Acc@QA, over all questions and by type, in percent."""
    right: dict[str, list[bool]] = {"Acc@QA": []}
    for group in group_sizes(questions):
        right[f"Acc@QA_{group}"] = []
    for question in questions:
        is_right = _is_right(answers, question)
        right["Acc@QA"].append(is_right)
        for group in _groups(question):
            right[f"Acc@QA_{group}"].append(is_right)
    return {name: _percent(values) for name, values in right.items()}


def _is_right(answers: Mapping[str, Chosen], question: Question) -> bool:
    answer = answers.get(question.key)
    return answer is not None and answer.prediction == answer.answer


def _groups(question: Question) -> tuple[str, str]:
    return GROUPS[question.type], question.type[0]


def group_sizes(questions: Sequence[Question]) -> Counter[str]:
    """How many questions there are of each type, in the order of the papers."""
    sizes = Counter(group for question in questions for group in _groups(question))
    order = [*dict.fromkeys(GROUPS.values()), "C", "T", "D"]
    return Counter({group: sizes[group] for group in order if sizes[group]})


def _percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)
