"""MVBench and LongVideoBench: the share of questions answered with the right option letter.

Which option an answer names is read by `distime.metrics.choices`; an answer that names none, or
several, is wrong and counted as unread. The published scorers look for the answer's first word
*within* the right answer's first word, so that an empty answer counts as right;
``published=True`` reports that beside.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distime.files import read_json
from distime.metrics.choices import UNKNOWN, Options, options_in, read_choice
from distime.metrics.files import MetricError, expect, is_number
from distime.metrics.result import Result

MVBENCH_TASKS = 20
MVBENCH_QUESTIONS_PER_TASK = 200
GROUPS = ("duration_group", "level", "question_category", "topic_category")
"""Fields of ``lvb_val.json`` that accuracy is given by."""


class Row(NamedTuple):
    """One answered question."""

    answer: str
    truth: str
    task: str
    """MVBench: the task. LongVideoBench: the question id."""
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


def names_right_option(row: Row) -> bool:
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


def score_mvbench(pred_path: Path, gt_path: Path | None, *, published: bool = False) -> Result:
    """Score the rows of ``MVBench.json``, or take over ``MVBench_result_final.json``."""
    value, _ = read_json(pred_path, "MVBench.json or MVBench_result_final.json")
    if isinstance(value, dict):
        return _final_mvbench(value, pred_path)
    rows = read_rows(value, pred_path)
    for number, row in enumerate(rows, 1):
        expect(letter(row.truth), f"{pred_path}, row {number}", f"gt {row.truth!r} has no letter.")
    unread = [row.answer for row in rows if not row.chosen]
    counts = {"questions": len(rows), "empty_answers": _empty(rows), "unread_answers": len(unread)}
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    counts |= {f"questions of {task}": len(part) for task, part in by_task.items()}
    warnings = []
    full = MVBENCH_TASKS * MVBENCH_QUESTIONS_PER_TASK
    if len(rows) != full or any(len(p) != MVBENCH_QUESTIONS_PER_TASK for p in by_task.values()):
        warnings.append(
            f"the file holds {len(rows)} rows of {len(by_task)} tasks, not {full} of "
            f"{MVBENCH_TASKS}: Avg is over these rows only (the published script saves the rows "
            "of its first process; its MVBench_result_final.json covers all)."
        )

    warnings += unread_warning(unread, len(rows))

    def table(rule: Callable[[Row], bool]) -> dict[str, float]:
        return {
            **{task: _percent(map(rule, part)) for task, part in by_task.items()},
            "Avg": _percent(map(rule, rows)),
        }

    as_run = {}
    if published:
        as_run = {f"{name}_lenient": value for name, value in table(_mvbench_as_run).items()}
    return Result("mvbench", table(names_right_option), counts, as_run, tuple(warnings))


def _final_mvbench(value: dict[str, Any], path: Path) -> Result:
    for task, number in value.items():
        expect(
            is_number(number) and 0 <= number <= 100,
            f"{path}, {task}",
            f"expected a percentage, found {number!r}; give MVBench_result_final.json.",
        )
    expect("Avg" in value, str(path), "it has no Avg; give MVBench_result_final.json.")
    warning = "percentages taken over from a final file; they cannot be recomputed from it."
    return Result("mvbench", value, {"tasks": len(value) - 1}, {}, (warning,))


def _mvbench_as_run(row: Row) -> bool:
    # Substring either way: '' and '(' are within every '(a)'.
    first = row.answer.replace("Answer: ", "").lower().split(" ")[0]
    truth = row.truth.lower().split(" ")[0]
    return first.replace(".", "") in truth or truth in first


def score_longvideobench(
    pred_path: Path, gt_path: Path | None, *, published: bool = False
) -> Result:
    """Score ``result.json``; with ``lvb_val.json`` also by group, and unanswered ones as wrong."""
    value, _ = read_json(pred_path, "LongVideoBench result.json")
    expect(isinstance(value, list), str(pred_path), "give result.json, the list of answers.")
    rows = read_rows(value, pred_path)
    unread = [row.answer for row in rows if not row.chosen]
    counts = {"questions": len(rows), "empty_answers": _empty(rows), "unread_answers": len(unread)}
    warnings = []
    if gt_path is None:
        for number, row in enumerate(rows, 1):
            place = f"{pred_path}, row {number}"
            expect(letter(row.truth), place, f"gt {row.truth!r} has no letter.")
        metrics = {"Accuracy_overall": _percent(map(names_right_option, rows))}
        warnings.append("no annotation given: no groups, and missing questions are not noticed.")
    else:
        metrics = _by_group(rows, read_ground_truth(gt_path), counts, pred_path, gt_path)
    warnings += unread_warning(unread, len(rows))
    as_run = {}
    if published:
        as_run["Accuracy_overall_lenient"] = _percent(map(_longvideobench_as_run, rows))
    return Result("longvideobench", metrics, counts, as_run, tuple(warnings))


def _by_group(
    rows: Sequence[Row],
    questions: dict[str, dict[str, Any]],
    counts: dict[str, int],
    pred_path: Path,
    gt_path: Path,
) -> dict[str, float]:
    chosen: dict[str, str] = {}
    counts |= {"duplicates": 0, "unknown": 0, "truth_differs": 0}
    for row in rows:
        question = questions.get(row.task)
        counts["unknown"] += question is None
        counts["duplicates"] += row.task in chosen
        if question is not None and letter(row.truth) != question["letter"]:
            counts["truth_differs"] += 1
        chosen.setdefault(row.task, row.chosen)
    expect(
        chosen.keys() & questions.keys(),
        str(pred_path),
        f"none of its questions is in {gt_path}; are these answers to another benchmark?",
    )
    counts["missing"] = len(questions.keys() - chosen.keys())
    counts["questions"] = len(questions)
    right = {key: chosen.get(key, "") == q["letter"] for key, q in questions.items()}
    metrics = {"Accuracy_overall": _percent(right.values())}
    for field in GROUPS:
        groups = sorted({question[field] for question in questions.values()})
        for group in groups:
            members = [right[key] for key, q in questions.items() if q[field] == group]
            metrics[f"{field}={group}"] = _percent(members)
            counts[f"{field}={group}"] = len(members)
    return metrics


def _longvideobench_as_run(row: Row) -> bool:
    answer, truth = row.answer.lower(), row.truth.lower()
    first, _, rest = answer.partition(" ")
    true_first, _, true_rest = truth.partition(" ")
    return first.replace(".", "").strip() in true_first or bool(true_rest and true_rest in rest)


def read_rows(value: Any, path: Path) -> list[Row]:
    """Check rows of ``{"pred": text, "gt": text, "task_type": text}``.

    Where a row has its ``question``, the options listed there help to read the answer.

    Raises:
        MetricError: there are none, or one is of another form.
    """
    problem = 'expected rows of {"pred", "gt", "task_type"}; is this another benchmark\'s file?'
    expect(isinstance(value, list) and value, str(path), problem)
    rows = []
    for number, row in enumerate(value, 1):
        fields = ("pred", "gt", "task_type")
        texts = [row.get(field) for field in fields] if isinstance(row, dict) else [None]
        expect(all(isinstance(text, str) for text in texts), f"{path}, row {number}", problem)
        rows.append(Row(*texts, options_in(str(row.get("question", "")))))
    return rows


def read_ground_truth(path: Path) -> dict[str, dict[str, Any]]:
    """Read ``lvb_val.json`` as question id -> its groups and the ``letter`` of the right option.

    Raises:
        MetricError: the file is not of this form.
    """
    value, _ = read_json(path, "LongVideoBench annotation (lvb_val.json)")
    expect(
        isinstance(value, list), str(path), "not a LongVideoBench annotation; give lvb_val.json."
    )
    questions = {}
    for number, row in enumerate(value, 1):
        try:
            groups = {field: row[field] for field in GROUPS}
            right = "abcdefghij"[row["correct_choice"]]
            questions[str(row["id"])] = {**groups, "letter": right}
        except (KeyError, TypeError, IndexError) as error:
            raise MetricError(
                f"{path}, row {number}: not a LongVideoBench question ({error!r}); "
                "give lvb_val.json."
            ) from None
    return questions


def _empty(rows: Sequence[Row]) -> int:
    return sum(not row.answer.strip() for row in rows)


def _percent(values: Any) -> float:
    values = list(values)
    return 100 * sum(values) / len(values)
