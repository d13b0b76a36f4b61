from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.files import FileError
from distime.metrics.multiple_choice import letter


def row(pred: str, gt: str, task: str = "Action Count") -> dict:
    return {"question": "?", "pred": pred, "gt": gt, "task_type": task}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(B) Ran.", "b"),
        ("B", "b"),
        ("b.", "b"),
        ("**(B)** because", "b"),
        ("Answer: (B) Ran.", "b"),
        ("answer:B", "b"),
        ("B\n.\n \nr\nu\nn", "b"),
        ("", ""),
        ("(", ""),
        (".", ""),
        ("Ran.", ""),
        ("1", ""),
        ("  (C)", "c"),
        ("é", "é"),
    ],
)
def test_letter(text, expected):
    assert letter(text) == expected


def test_mvbench_by_hand(write):
    rows = [
        row("(A) Two.", "(A) Two."),
        row("", "(A) Two."),
        row("(B) No.", "(A) Yes.", "State Change"),
        row("Answer: (A)", "(A) Yes.", "State Change"),
    ]
    result = score("mvbench", write("p.json", rows), published=True)
    assert result.metrics == {"Action Count": 50, "State Change": 50, "Avg": 50}
    # The empty answer is within every right answer's first word.
    assert result.published_as_run["Action Count_lenient"] == 100
    assert result.published_as_run["Avg_lenient"] == 75
    assert result.counts["empty_answers"] == 1
    assert "not 4000" in result.warnings[0]


def test_mvbench_complete_file_has_no_warning(write):
    rows = [row("(A)", "(A) x", f"task {i % 20}") for i in range(4000)]
    result = score("mvbench", write("p.json", rows))
    assert result.warnings == () and result.metrics["Avg"] == 100


def test_mvbench_final_file_is_taken_over(write):
    result = score("mvbench", write("p.json", {"Action Count": 40.0, "Avg": 40.0}))
    assert result.metrics == {"Action Count": 40.0, "Avg": 40.0}
    for wrong in ({"Avg": 140.0}, {"Action Count": 40.0}, {"Avg": "x"}):
        with pytest.raises(FileError, match="MVBench_result_final.json"):
            score("mvbench", write("p.json", wrong))


def question(key: str, right: int, group: int) -> dict:
    return {
        "id": key,
        "correct_choice": right,
        "duration_group": group,
        "level": "L1-Perception",
        "question_category": "E2O",
        "topic_category": "é",
    }


def test_longvideobench_by_hand(write):
    gt = write("g.json", [question("a", 0, 15), question("b", 1, 600), question("c", 2, 600)])
    rows = [row("A", "\n".join("A. x"), "a"), row("", "\n".join("B. y"), "b")]
    result = score("longvideobench", write("p.json", rows), gt, published=True)
    assert result.metrics["Accuracy_overall"] == pytest.approx(100 / 3)
    assert result.metrics["duration_group=15"] == 100
    assert result.metrics["duration_group=600"] == 0
    assert result.counts["missing"] == 1 and result.counts["empty_answers"] == 1
    # Published: over the rows there are, and an empty answer is right.
    assert result.published_as_run == {"Accuracy_overall_lenient": 100}


@pytest.mark.parametrize(
    ("pred", "strict", "lenient"),
    [("B", 1, 1), ("B.", 1, 1), ("b", 1, 1), ("B. run", 1, 1), ("(B)", 1, 0), ("B:", 1, 0)]
    + [("", 0, 1), (".", 0, 1), ("run", 0, 0), ("C", 0, 0)],
)
def test_longvideobench_rules(write, monkeypatch, tmp_path, pred, strict, lenient):
    monkeypatch.setenv("DISTIME_HOME", str(tmp_path))
    rows = [row(pred, "\n".join("B. run"), "a")]
    result = score("longvideobench", write("p.json", rows), published=True)
    assert result.metrics == {"Accuracy_overall": 100 * strict}
    assert result.published_as_run == {"Accuracy_overall_lenient": 100 * lenient}


def test_longvideobench_counts(write):
    gt = write("g.json", [question("a", 0, 15)])
    rows = [row("A", "A. x", "a"), row("B", "A. x", "a"), row("A", "A. x", "z")]
    counts = score("longvideobench", write("p.json", rows), gt).counts
    assert counts["duplicates"] == 1 and counts["unknown"] == 1 and counts["truth_differs"] == 0


@pytest.mark.parametrize("benchmark", ["mvbench", "longvideobench"])
@pytest.mark.parametrize("rows", [[], [{"pred": "A"}], [{"pred": 1, "gt": "A", "task_type": "t"}]])
def test_wrong_rows(write, benchmark, rows):
    with pytest.raises(FileError, match="is this another benchmark"):
        score(benchmark, write("p.json", rows))


def test_truth_without_a_letter(write):
    with pytest.raises(FileError, match="row 1: gt 'run' has no letter"):
        score("mvbench", write("p.json", [row("A", "run")]))


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("ABCD")), min_size=1))
def test_accuracy_is_the_share_of_equal_letters(pairs):
    from distime.metrics.multiple_choice import ChoiceRow, names_right_option

    rows = [ChoiceRow(f"({a}) x", f"({b}) y", "t") for a, b in pairs]
    assert sum(map(names_right_option, rows)) == sum(a == b for a, b in pairs)


def test_unread_answers_are_counted_and_shown(write):
    question = (
        "Which?\nOptions:\n(A) A person is running.\n(B) He sits.\nOnly give the best option."
    )
    answers = ["A man.", "A person is running", "The answer is B because ...", "He sits", "A or B"]
    rows = [row(text, "(B) He sits.") | {"question": question} for text in answers]
    result = score("mvbench", write("p.json", rows))
    assert result.metrics["Avg"] == 40
    assert result.counts["unread_answers"] == 2
    assert any("2 of 5 answers name no option" in text for text in result.warnings)
    assert "'A man.'" in result.table()
    rows = [row(text, "B. He sits.", str(i)) for i, text in enumerate(["Option B", "C'est la vie"])]
    result = score("longvideobench", write("p.json", rows))
    assert result.metrics["Accuracy_overall"] == 50 and result.counts["unread_answers"] == 1
    assert "1 of 2 answers name no option" in result.table()
