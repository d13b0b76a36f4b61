from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.benchmarks.nextgqa import evaluate, split, split_file
from distime.files import FileError
from distime.metrics.grounded_answers import Chosen, Question, best_overlap

CSV = (
    "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    "7,1,1,1,why ü,x,0,CW,x,b,c,d,e\n"
    '7,1,1,1,"how, then",x,1,CH,x,b,c,d,e\n'
    "7,1,1,1,where,x,2,TN,x,b,c,d,e\n"
    "8,1,1,1,unlocated,x,0,TC,x,b,c,d,e\n"
)


@pytest.fixture
def gt(write):
    write("test.csv", CSV)
    locations = {"0": [[0, 10]], "1": [[0, 4], [6, 10]], "2": [[0, 10]]}
    return write("gsub_test.json", {"7": {"duration": 10, "location": locations, "fps": 1}})


def row(qid: str, prediction: object, timestamp: list, target: int = 0) -> dict:
    return {"qid": qid, "prediction": prediction, "timestamp": timestamp, "target": target}


def test_by_hand(write, gt):
    rows = [
        row("CW_7_0", "0", [5, 15]),  # IoU 5/15, IoP 5/10: a tie
        row("CH_7_1", "1", [6, 10]),  # IoU and IoP 1, wrong answer
        row("TN_7_2", -1, [20, 30]),  # nothing
    ]
    result = score("nextgqa", write("r.json", rows), gt, published=True)
    assert result.metrics == pytest.approx(
        {
            "Acc@GQA": 100 / 3,
            "mIoP": 50,
            "IoP@0.3": 200 / 3,
            "IoP@0.5": 200 / 3,
            "mIoU": 400 / 9,
            "IoU@0.3": 200 / 3,
            "IoU@0.5": 100 / 3,
            "Acc@QA": 100 / 3,
            "Acc@QA_Why": 100,
            "Acc@QA_How": 0,
            "Acc@QA_Bef&Aft": 0,
            "Acc@QA_C": 50,
            "Acc@QA_T": 0,
        }
    )
    assert result.counts["questions"] == 3 and result.counts["unparsable_answers"] == 1
    assert result.published_as_run["mIoP_without_missing"] == pytest.approx(50)


def test_unusual_spans_are_counted(write, gt):
    rows = [row("CW_7_0", "0", [-1, -1]), row("CH_7_1", "1", [8, 3]), row("TN_7_2", "0", [5, 15])]
    counts = score("nextgqa", write("r.json", rows), gt).counts
    assert counts["no_answer"] == counts["reversed"] == counts["out_of_range"] == 1


def test_missing_counts_as_a_miss(write, gt):
    rows = [row("CW_7_0", "0", [0, 10])]
    result = score("nextgqa", write("r.json", rows), gt.parent, published=True)
    assert result.metrics["Acc@GQA"] == pytest.approx(100 / 3)
    assert result.metrics["Acc@QA"] == pytest.approx(100 / 3)
    assert result.counts["missing_spans"] == result.counts["missing_answers"] == 2
    # Published: dropped from every denominator of grounding, KeyError in the accuracies.
    assert result.published_as_run["Acc@GQA_without_missing"] == 100
    assert "Acc@QA" not in result.published_as_run and "KeyError" in result.warnings[0]


@pytest.mark.parametrize(
    ("span", "locations", "expected"),
    [
        ((3, 3), [(0, 10)], (0, 1)),  # a point inside
        ((3, 3), [(4, 10)], (0, 0)),
        ((9, 3), [(0, 10)], (0, 0)),  # reversed
        ((9, 3), [(2, 8)], (0, 0)),
        ((20, 30), [(0, 10)], (0, 0)),
        ((0, 10), [(0, 2), (4, 8)], (0.4, 0.4)),
        # The best IoU and the best IoP lie in different locations.
        ((0, 10), [(2, 9), (0, 40)], (0.7, 1.0)),
    ],
)
def test_overlap_by_hand(span, locations, expected):
    assert best_overlap(span, locations) == pytest.approx(expected)


def test_halves_and_raw_agree(write, gt):
    raw = write("result.json", [row("CW_7_0", "0", [5, 15]), row("CH_7_1", "1", [6, 8, 10])])
    qa, gd = split_file(raw)
    assert json.loads(qa.read_text())["7_0"] == {"prediction": 0, "answer": 0}
    assert json.loads(gd.read_text())["7_1"] == [6, 10]
    whole = score("nextgqa", raw, gt)
    assert score("nextgqa", [gd, qa], gt).metrics == whole.metrics
    only_answers = score("nextgqa", qa, gt).metrics
    assert only_answers == {k: v for k, v in whole.metrics.items() if k.startswith("Acc@QA")}
    assert "Acc@GQA" not in score("nextgqa", gd, gt).metrics


def test_halves_of_different_runs_are_warned_about(write, gt, tmp_path):
    (tmp_path / "other").mkdir()
    gd = write("other/gd.json", {"7_0": [0, 1]})
    result = score("nextgqa", [write("qa.json", {"7_0": {"prediction": 0, "answer": 0}}), gd], gt)
    assert "different folders" in result.warnings[0]


def test_repeated_questions_are_counted():
    rows = [row("CW_7_0", "0", [0, 1]), row("CW_7_0", "1", [2, 3])]
    qa, gd, repeats = split(rows, "r.json")
    assert repeats == 1 and qa["7_0"]["prediction"] == 1 and gd["7_0"] == [2, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("7", "0", [0, 1])], "row 1: qid '7' is not TYPE_VIDEO_QUESTION"),
        ([row("CW_7_0", "(0)", [0, 1])], "row 1: prediction '.0.'"),
        ([row("CW_7_0", "0", [])], "row 1: timestamp"),
        ([{"qid": "CW_7_0", "timestamp": [0, 1]}], "result.json of stage 2"),
        ([row("CW_9_0", "0", [0, 1])], "none of its 1 questions"),
        ({"7_0": [0, "x"]}, "7_0: expected .start, end."),
        ({"7_0": {"prediction": 1}}, "7_0: expected .*prediction"),
    ],
)
def test_errors_name_the_place(write, gt, rows, message):
    with pytest.raises(FileError, match=message):
        score("nextgqa", write("r.json", rows), gt)


def test_annotation_files_must_belong_together(write, gt):
    write("test.csv", CSV.replace("7,1,1,1,where,x,2", "7,1,1,1,where,x,5"))
    with pytest.raises(FileError, match="it lacks 1 questions of gsub_test.json, first 7_2"):
        score("nextgqa", write("r.json", []), gt)


times = st.integers(0, 30).map(float)
windows = st.tuples(times, times).map(sorted).map(tuple)


@given(st.lists(st.tuples(windows, st.lists(windows, min_size=1, max_size=3)), min_size=1))
def test_properties(cases):
    questions = [Question(str(i), "CW", locations) for i, (_, locations) in enumerate(cases)]
    spans = {str(i): span for i, (span, _) in enumerate(cases)}
    answers = {question.key: Chosen(0, 0) for question in questions}
    metrics = evaluate(answers, spans, questions).metrics
    assert all(0 <= value <= 100 + 1e-9 for value in metrics.values())
    assert metrics["IoP@0.3"] >= metrics["IoP@0.5"] >= metrics["Acc@GQA"]
    assert metrics["mIoP"] >= metrics["mIoU"] - 1e-9
    assert evaluate(answers, spans, questions[::-1]).metrics == pytest.approx(metrics)


def test_the_published_pattern_is_reported_beside(write, gt):
    rows = [
        row("CW_7_0", "0", [5, 15]) | {"published_prediction": -1},  # "0"
        row("CH_7_1", "0", [6, 10]) | {"published_prediction": 1},  # "not (1), (0)"
        row("TN_7_2", -1, [20, 30]),
    ]
    path = write("r.json", rows)
    result = score("nextgqa", path, gt, published=True)
    assert result.metrics["Acc@QA"] == pytest.approx(200 / 3)
    assert result.published_as_run["Acc@QA"] == 0
    assert "1 of 3 answers name no option" in result.table()
    halves = score("nextgqa", list(split_file(path)), gt, published=True)
    assert halves.metrics == result.metrics
    assert halves.published_as_run == result.published_as_run
