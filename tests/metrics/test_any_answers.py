"""Answers of every kind against a second reading of the definitions, in exact fractions.

Reversed, empty, missing, several, tied and doubled intervals, points, and points as truths; times
are whole seconds, so that sets of intervals are sets of seconds. Files are those `score` reads.
"""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distime.benchmarks import score

SECOND = st.integers(0, 9)
ANY = st.tuples(SECOND, SECOND).map(list)
FORWARD = st.tuples(SECOND, SECOND).map(sorted)
LONG = FORWARD.filter(lambda one: one[0] < one[1])


def apart(spans):
    """Drop what overlaps or touches an earlier interval."""
    kept = []
    for start, end in spans:
        if all(end < s or e < start for s, e in kept):
            kept.append([start, end])
    return kept


@st.composite
def sheets(draw, truth):
    """Truths of one to five queries, and answers: None is missing, [] is empty."""
    truths = draw(st.lists(truth, min_size=1, max_size=5))
    answer = st.none() | st.lists(ANY, max_size=4)
    answers = [draw(answer) for _ in truths]
    answers[0] = [] if answers[0] is None else answers[0]  # else the file is of another benchmark
    return truths, answers


ONE, SETS = sheets(FORWARD), sheets(st.lists(LONG, min_size=1, max_size=3).map(apart))


def hull_iou(a, b):
    common, hull = min(a[1], b[1]) - max(a[0], b[0]), max(a[1], b[1]) - min(a[0], b[0])
    return Fraction(max(0, common), hull) if hull > 0 else Fraction(0)


def seconds(spans):
    return {second for start, end in spans for second in range(start, end)}


def set_iou(a, b):
    a, b = seconds(a), seconds(b)
    return Fraction(len(a & b), len(a | b)) if a | b else Fraction(1)


def percent(values):
    return pytest.approx(100 * float(Fraction(sum(values), len(values))), abs=1e-9)


def table(ious, thresholds=("0.3", "0.5", "0.7"), above=False):
    """R1@t and mIoU; of thresholds the decimal numbers are meant."""
    expected = {"mIoU": percent(ious)}
    for text in thresholds:
        t = Fraction(text)
        expected[f"R1@{text}"] = percent([iou > t if above else iou >= t for iou in ious])
    return expected


def first_ious(sheet):
    return [
        hull_iou(said[0], truth) if said else Fraction(0)
        for truth, said in zip(*sheet, strict=True)
    ]


def scored(folder, benchmark, truths, rows, lines=False):
    """Score rows against an annotation, both values or lines of them."""

    def write(name, value):
        path = folder / (name + (".jsonl" if isinstance(value, list) and lines else ".json"))
        text = "".join(f"{json.dumps(one)}\n" for one in value) if lines else json.dumps(value)
        path.write_text(text)
        return path

    return score(benchmark, write("answers", rows), write("truth", truths), published=True)


def assert_expected(result, expected, sheet):
    for name, value in expected.items():
        assert result.metrics[name] == value, name
    assert result.counts["queries"] == len(sheet[0])
    assert result.counts["missing"] == sheet[1].count(None)


checked = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(ONE)
@checked
def test_timelens(tmp_path, sheet):
    queries = [f"query {number}" for number in range(len(sheet[0]))]
    truth = {"v": {"duration": 9, "spans": sheet[0], "queries": queries}}
    rows = {
        f"v.mp4>>>{query}>>>{span}": {"timestamps": said, "duration": 9}
        for query, span, said in zip(queries, *sheet, strict=True)
        if said is not None
    }
    result = scored(tmp_path, "timelens_charades", truth, rows)
    assert_expected(result, table(first_ious(sheet)), sheet)
    given_rows = [row for row in zip(*sheet, strict=True) if row[1] is not None]
    answered = list(zip(*given_rows, strict=True))
    for name, value in table(first_ious(answered)).items():
        assert result.published_as_run[name] == value, name


@given(ONE)
@checked
def test_tvgbench(tmp_path, sheet):
    fields = {"path": "v.mp4", "question": "q", "source": "s.json", "start": None, "end": None}
    truths = [{**fields, "answer": f"{s}-{e}", "duration": 9} for s, e in sheet[0]]
    rows = [
        {"qid": f"s_{n}", "pred": said[0] if said else [None, None], "target": span}
        for n, (span, said) in enumerate(zip(*sheet, strict=True))
        if said is not None
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truths))
    (tmp_path / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    paths = tmp_path / "answers.jsonl", tmp_path / "truth.json"
    result = score("tvgbench", *paths, published=True)
    assert_expected(result, table(first_ious(sheet), above=True), sheet)


@given(ONE, st.lists(st.sampled_from("ABCDa"), min_size=5, max_size=5))
@checked
def test_rextime(tmp_path, sheet, letters):
    fields = {"query": "q", "vid": "v", "duration": 9, "ans": "A"}
    truths = [{**fields, "qid": n, "relevant_windows": [w]} for n, w in enumerate(sheet[0])]
    rows = [
        {"qid": n, "pred_relevant_windows": said, "ans": letters[n]}
        for n, said in enumerate(sheet[1])
        if said is not None
    ]
    result = scored(tmp_path, "rextime", truths, rows, lines=True)
    ious = first_ious(sheet)
    right = [
        said is not None and letter == "A" for said, letter in zip(sheet[1], letters, strict=False)
    ]
    expected = table(ious, ("0.3", "0.35", "0.5", "0.7", "0.95")) | {"VQA": percent(right)}
    both = [ok and iou >= Fraction("0.5") for ok, iou in zip(right, ious, strict=True)]
    assert_expected(result, expected | {"VQA,mIoU@0.5": percent(both)}, sheet)


@given(ONE)
@checked
def test_tacos(tmp_path, sheet):
    truths = [{"qid": n, "relevant_windows": [window]} for n, window in enumerate(sheet[0])]
    rows = [
        {"qid": n, "pred_relevant_windows": [[*window, 0.5] for window in said]}
        for n, said in enumerate(sheet[1])
        if said is not None
    ]
    result = scored(tmp_path, "tacos", truths, rows, lines=True)
    expected = table(first_ious(sheet), ("0.3", "0.5", "0.7", "0.9"))
    # With one truth AP is 1 / rank of the first hit; equal scores keep the order of the list.
    for text in ("0.5", "0.75"):
        precisions = []
        for truth, said in zip(*sheet, strict=True):
            hits = [
                seconds([one]) != set() and set_iou([one], [truth]) >= Fraction(text)
                for one in said or []
            ]
            precisions.append(Fraction(1, hits.index(True) + 1) if any(hits) else Fraction(0))
        expected[f"mAP@{text}"] = percent(precisions)
    assert_expected(result, expected, sheet)


@given(ONE)
@checked
def test_ego4d_nlq(tmp_path, sheet):
    asked = [{"query": "q", "clip_start_sec": s, "clip_end_sec": e} for s, e in sheet[0]]
    annotations = [{"annotation_uid": "a", "language_queries": asked}]
    truth = {"videos": [{"clips": [{"clip_uid": "c", "annotations": annotations}]}]}
    rows = [
        {"clip_uid": "c", "annotation_uid": "a", "query_idx": n, "predicted_times": said}
        for n, said in enumerate(sheet[1])
        if said is not None
    ]
    result = scored(tmp_path, "ego4d_nlq", truth, {"results": rows})
    expected = {"mIoU": percent(first_ious(sheet))}
    for k in (1, 3, 5):
        for text in ("0.3", "0.5", "0.01"):
            expected[f"R@{k} IoU>{text}"] = percent(
                [
                    any(hull_iou(one, truth) > Fraction(text) for one in (said or [])[:k])
                    for truth, said in zip(*sheet, strict=True)
                ]
            )
    assert_expected(result, expected, sheet)


@given(SETS)
@checked
def test_vue_tr(tmp_path, sheet):
    groups = {"duration_category": "short", "query_format": "phrase", "query_modality": "vision"}
    truths = [{"query_id": n, "gt": spans, **groups} for n, spans in enumerate(sheet[0])]
    rows = [
        {"query_id": n, "answer": said or [[]]}
        for n, said in enumerate(sheet[1])
        if said is not None
    ]
    result = scored(tmp_path, "vue_tr_v2", truths, rows)
    ious = [set_iou(said or [], truth) for truth, said in zip(*sheet, strict=True)]
    assert_expected(result, {"mIoU": percent(ious)}, sheet)
    assert result.metrics["Recall"] <= 100


@given(SETS)
@checked
def test_momentseeker(tmp_path, sheet):
    fields = {"qry_text": "q", "src_video_path": "v", "task": "t"}
    truths = [{**fields, "answering_time_interval": spans} for spans in sheet[0]]
    rows = [
        {"index": n, "prediction": str(said)} for n, said in enumerate(sheet[1]) if said is not None
    ]
    result = scored(tmp_path, "momentseeker", truths, rows)
    ious = [set_iou(said or [], truth) for truth, said in zip(*sheet, strict=True)]
    assert_expected(result, table(ious), sheet)


@given(sheets(st.lists(LONG, max_size=3).map(apart)))
@checked
def test_omtg_bench(tmp_path, sheet):
    def words(spans):
        return ", ".join(f"<time>{s} - {e} seconds</time>" for s, e in spans) or "It does not."

    truths = [{"index": n, "answer": words(spans)} for n, spans in enumerate(sheet[0])]
    rows = [
        {"index": n, "prediction": words(said)}
        for n, said in enumerate(sheet[1])
        if said is not None
    ]
    result = scored(tmp_path, "omtg_bench", truths, rows)
    ious, exact = [], []
    for truth, said in zip(*sheet, strict=True):
        read = [one for one in said or [] if one[0] < one[1]]
        ious.append(Fraction(0) if said is None else set_iou(read, truth))
        exact.append(said is not None and len(read) == len(truth))
    assert_expected(result, {"tIoU": percent(ious), "C-Acc": percent(exact)}, sheet)
