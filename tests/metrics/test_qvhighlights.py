from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.benchmarks.qvh import (
    THRESHOLDS,
    Windows,
    average_precision,
    evaluate,
    parse_windows,
)
from distime.files import FileError

GT = [
    {"qid": "Q_1", "relevant_windows": [[0, 10], [20, 60]]},
    {"qid": "Q_2", "relevant_windows": [[30, 40]]},
]


def row(qid: str, prediction: str, target: str) -> dict:
    return {"qid": qid, "query": "é", "prediction": prediction, "target": target, "duration": 150}


def test_by_hand(write):
    pred = [
        # IoU 5/10 with the first window, a tie; the second window found second.
        row("Q_1", "[[5.0, 10.0], [20, 60]]", "[[0, 10], [20, 60]]"),
        row("Q_2", "[[30, 38]]", "[[30, 40]]"),  # IoU 0.8
    ]
    result = score("qvh", write("p.json", pred), write("g.json", GT), published=True)
    metrics = result.metrics
    assert metrics["R1@0.5"] == 100 and metrics["R1@0.55"] == 50 and metrics["R1@0.7"] == 50
    assert metrics["mIoU"] == pytest.approx(65)
    # At 0.55 the first prediction of Q_1 is wrong: precision 1/2 at recall 1/2.
    assert metrics["mAP@0.5"] == pytest.approx(100)
    assert metrics["mAP@0.55"] == pytest.approx((25 + 100) / 2)
    assert metrics["MR-full-mAP@0.5"] == metrics["mAP@0.5"]
    # Short: (0, 10]; the window of exactly 10 s belongs to it. Long: above 30 s.
    assert result.counts["queries_short"] == 2
    assert result.counts["queries_middle"] == 0 and "MR-middle-mAP" not in metrics
    assert result.counts["queries_long"] == 1
    assert metrics["MR-long-mAP@0.5"] == pytest.approx(50)
    as_run = result.published_as_run
    assert as_run["mAP-average_rounded"] == round(metrics["mAP-average"], 2)
    assert as_run["MR-short-mAP_of_all_lengths"] == as_run["mAP-average_rounded"]


def test_missing_duplicate_unknown_and_unparsable(write):
    pred = [
        row("Q_1", "[[0, 10], [3]]", "[[0, 10], [20, 60]]"),
        row("Q_1", "[[20, 60]]", "[[0, 10], [20, 60]]"),
        row("Q_9", "nothing", "[[0, 1]]"),
        row("Q_8", "[[100, 151]]", "[[0, 1]]"),
    ]
    result = score("qvh", write("p.json", pred), write("g.json", GT))
    assert result.metrics["R1@0.5"] == 50  # The first answer of Q_1, nothing of Q_2.
    assert result.counts["missing"] == 1 and result.counts["unknown"] == 2
    assert result.counts["out_of_range"] == 1
    assert result.counts["duplicates"] == 1 and result.counts["unparsable"] == 2


def test_without_annotation_the_targets_are_used_as_published(write, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTIME_HOME", str(tmp_path))
    pred = [row("Q_1", "[[0, 10]]", "[[0, 10]]"), row("Q_1", "[[-1, -1]]", "[[0, 10]]")]
    result = score("qvh", write("p.json", pred), published=True)
    assert result.metrics["R1@0.5"] == 50 and result.counts["duplicates"] == 1
    assert result.published_as_run["invalid_predictions"] == 50
    assert "val.json" in result.warnings[0]


def test_ties_that_float64_loses_are_counted():
    query = Windows([(0.1, 0.9)], [(0.1, 0.7)])
    result = evaluate([query])
    assert result.metrics["R1@0.75"] == 0 and result.counts["ties_below_threshold"] == 1


def test_average_precision_by_hand():
    # Ranking: wrong, right, right of three windows; precision 1/2, 2/3 -> made monotone 2/3, 2/3.
    query = Windows([(0, 10), (20, 30), (40, 50)], [(100, 110), (0, 10), (20, 30)])
    assert average_precision(query, [0.5]) == pytest.approx([2 / 3 * 2 / 3])
    # A window that is found twice counts once.
    query = Windows([(0, 10)], [(0, 10), (0, 10)])
    assert average_precision(query, [0.5]) == [1.0]
    # A reversed prediction is wrong, except for the published comparison with NaN.
    query = Windows([(2, 8)], [(9, 3)])
    assert average_precision(query, [0.5]) == [0.0]
    assert average_precision(query, [0.5], nan_is_match=True) == [1.0]


@pytest.mark.parametrize(
    ("text", "windows", "clean"),
    [
        ("[[1, 2.5]]", [(1, 2.5)], True),
        ("[[1, 2], [3, 4]]", [(1, 2), (3, 4)], True),
        ([[1, 2]], [(1, 2)], True),
        (" [[1, 2]]", [(1, 2)], True),
        ("[\n  [\n    1.0,\n    2.5\n  ],\n  [3, 4]\n]", [(1, 2.5), (3, 4)], True),
        ("[[np.float64(10), np.float32(22.5)]]", [(10, 22.5)], True),
        ("[[np.int64(10), 22]]", [(10, 22)], True),
        ("array([[10., 20.],\n       [30., 40.]], dtype=float32)", [(10, 20), (30, 40)], True),
        ("[[10. 20.]\n [30. 40.]]", [(10, 20), (30, 40)], True),
        ("tensor([[10., 20.]])", [(10, 20)], True),
        ("[(1, 2), (3, 4)]", [(1, 2), (3, 4)], True),
        ("[['1.5', '2.5']]", [(1.5, 2.5)], True),
        ([["1.5", " 2.5"]], [(1.5, 2.5)], True),
        ("[[1, 2, 0.9], [3, 4, 0.1]]", [(1, 2), (3, 4)], True),
        ("[1, 2]", [(1, 2)], True),
        ("[]", [(-1, -1)], True),
        ("[[1, 2], [3]]", [(1, 2), (-1, -1)], False),
        ("[[1, 2]] s", [(-1, -1)], False),
        ("[[nan, 2]]", [(-1, -1)], False),
        ("from 1 to 2", [(-1, -1)], False),
        (None, [(-1, -1)], False),
    ],
)
def test_parsing(text, windows, clean):
    assert parse_windows(text) == (windows, clean)


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        ({"Q_1": []}, "is this another benchmark"),
        ([{"qid": "Q_1"}], "p.json, row 1: expected"),
        ([{"qid": "Q_7", "prediction": "[[0, 1]]"}], "another split"),
        ([row("Q_1", "[[0, 1]]", "oops")], "row 1: target 'oops'"),
    ],
)
def test_errors_name_the_place(write, pred, message):
    with pytest.raises(FileError, match=message):
        score("qvh", write("p.json", pred), write("g.json", GT))


times = st.integers(0, 150).map(float)
windows = st.tuples(times, times).map(sorted).map(tuple).filter(lambda w: w[0] < w[1])


@given(
    st.lists(
        st.builds(
            Windows,
            st.lists(windows, min_size=1, max_size=3),
            st.lists(windows, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_properties(queries):
    metrics = evaluate(queries).metrics
    recalls = [metrics[f"R1@{t}"] for t in THRESHOLDS]
    assert recalls == sorted(recalls, reverse=True)
    assert all(0 <= value <= 100 + 1e-9 for value in metrics.values())
    assert evaluate(queries[::-1]).metrics == pytest.approx(metrics)
    one = [Windows(query.windows, query.predicted[:1]) for query in queries]
    for query in one:  # With one predicted window AP is the hit divided by the windows.
        best = average_precision(query, [0.5])[0]
        assert best == pytest.approx((best > 0) / len(query.windows))
    distinct = [Windows(sorted(set(q.windows)), sorted(set(q.windows))) for q in queries]
    perfect = evaluate(distinct).metrics
    assert perfect["R1@0.95"] == 100 and perfect["mAP@0.95"] == pytest.approx(100)


FORMS = [
    "[[{:.1f}, {:.1f}]]",
    "  [[{:.1f}, {:.1f}]]\n",
    "[[np.float64({:.1f}), np.float64({:.1f})]]",
    "[\n  [\n    {:.1f},\n    {:.1f}\n  ]\n]",
    "[[{:.1f}, {:.1f}, 0.97]]",
    "[['{:.1f}', '{:.1f}']]",
    "[[{:.1f} {:.1f}]]",
    "[({:.1f}, {:.1f})]",
]


@given(st.sampled_from(FORMS), st.lists(windows, min_size=1, max_size=5))
def test_perfect_windows_are_perfect_however_they_are_written(form, truth):
    for start, end in truth:
        assert parse_windows(form.format(start, end)) == ([(start, end)], True)


def test_scores_order_the_windows_for_precision_alone(write):
    """As the official scorer: R1 takes the first listed window, mAP the likeliest first."""
    pred = [row("Q_2", "[[100, 110, 0.1], [30, 40, 0.9]]", "[[30, 40]]")]
    result = score("qvh", write("p.json", pred), write("g.json", GT[1:]))
    assert result.metrics["R1@0.5"] == 0 and result.metrics["mAP@0.5"] == 100


def test_many_unreadable_rows_are_an_error(write):
    gt = write("g.json", [{"qid": f"Q_{i}", "relevant_windows": [[0, 10]]} for i in range(40)])
    good = [{"qid": f"Q_{i}", "prediction": "[[0, 10]]"} for i in range(40)]

    def with_bad(count):
        bad = [one | {"prediction": "from 0 to 10 seconds"} for one in good[:count]]
        return write("p.json", bad + good[count:])

    result = score("qvh", with_bad(2), gt)
    assert result.counts["unparsable"] == 2 and result.metrics["R1@0.5"] == 95
    assert "2 of 40 rows cannot be read" in result.table() and "row 1 (Q_0)" in result.table()
    for count in (6, 40):
        with pytest.raises(FileError, match=rf"p.json: {count} of 40 rows cannot .*row 1 \(Q_0\)"):
            score("qvh", with_bad(count), gt)


def test_the_published_reader_is_as_it_was(write):
    pred = [
        row("Q_2", "[[np.float64(30), 40]]", "[[30, 40]]"),
        row("Q_2", "[[30, 40]]", "[[30, 40]]"),
    ]
    result = score("qvh", write("p.json", pred), published=True)
    assert result.published_as_run["invalid_predictions"] == 50
    assert result.published_as_run["mIoU"] == 50
