from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.benchmarks.charades import Moment, evaluate
from distime.files import FileError


def annotation(*segments: tuple[str, float, float], duration: float = 30.0) -> dict:
    annotations = [{"label": text, "segment": [start, end]} for text, start, end in segments]
    return {"database": {"V": {"duration": duration, "annotations": annotations}}}


def answer(start: float, end: float) -> dict:
    return {"start": start, "end": end, "conf": 1}


def test_by_hand(write):
    gt = write("gt.json", annotation(("a", 0, 10), ("b", 0, 10), ("c", 0, 10), ("d", 5, 10)))
    # IoU 10/10, 5/10 (a tie with 0.5), 2/10, and no overlap.
    pred = write(
        "p.json",
        {"V": {"a": answer(0, 10), "b": answer(0, 5), "c": answer(8, 10), "d": answer(0, 5)}},
    )
    result = score("charades", pred, gt)
    assert result.metrics == pytest.approx(
        {"R1@0.3": 50, "R1@0.5": 50, "R1@0.7": 25, "mIoU": (100 + 50 + 20 + 0) / 4}
    )
    assert result.counts["queries"] == 4
    assert result.files == {"predictions": str(pred), "ground_truth": str(gt)}


@pytest.mark.parametrize(
    ("window", "predicted", "threshold"),
    # float32 puts the first two below their threshold, float64 the second.
    [((2.2, 5.4), (2.2, 3.8), "0.5"), ((0.0, 1.0), (0.3, 1.0), "0.7"), ((0, 1), (0.7, 1), "0.3")],
)
def test_ties_count_as_hits(window, predicted, threshold):
    queries = [Moment("V", "q", window, 30.0)]
    result = evaluate({("V", "q"): predicted}, queries)
    assert result.metrics[f"R1@{threshold}"] == 100


def test_published_quirks_by_hand(write):
    # IoU 1/3 and 2/3: the published mean is of 33 and 66.
    gt = write("gt.json", annotation(("a", 0, 3), ("b", 0, 3)))
    pred = write("p.json", {"V": {"a": answer(0, 1), "b": answer(0, 2)}})
    result = score("charades", pred, gt, published=True)
    assert result.metrics["mIoU"] == pytest.approx(50)
    assert result.published_as_run["mIoU_truncated"] == 49.5
    assert result.published_as_run["R1@0.5_float32"] == pytest.approx(100 / 2.00001)
    assert result.published_as_run["R5@0.5_float32"] == pytest.approx(100 / 2.00001)


def test_missing_reversed_and_unanswered_are_misses_and_counted(write):
    gt = write("gt.json", annotation(*((text, 2, 8) for text in "abcdef")))
    pred = write(
        "p.json",
        {
            "V": {
                "a": answer(2, 8),
                "b": answer(9, 3),
                "c": answer(-1, -1),
                "d": answer(2, 80),
                "e": answer(5, 5),
                "x": answer(0, 1),
            }
        },
    )
    result = score("charades", pred, gt, published=True)
    assert result.metrics["R1@0.3"] == pytest.approx(100 / 6)
    assert result.metrics["mIoU"] == pytest.approx(100 * (1 + 6 / 78) / 6)
    expected = {"missing": 1, "reversed": 1, "no_answer": 1, "out_of_range": 1, "unknown": 1}
    assert result.counts == {"queries": 6, "duplicate_keys": 0, **expected}
    assert result.published_as_run == {} and "NameError" in result.warnings[0]


def test_reversed_prediction_stops_the_published_scorer_only():
    queries = [Moment("V", "q", (2, 8), 30.0)]
    result = evaluate({("V", "q"): (9, 3)}, queries, published=True)
    assert result.metrics["mIoU"] == 0
    assert result.published_as_run == {} and "ValueError" in result.warnings[0]


def test_reversed_annotation_is_swapped(write):
    gt = write("gt.json", annotation(("ö", 8, 2)))
    assert score("charades", write("p.json", {"V": {"ö": answer(2, 8)}}), gt).metrics["mIoU"] == 100


def test_clipped_annotation_format(write):
    rows = [{"video": "V", "query": "q", "duration": 9.5, "relevant_windows": [[1, 9.5]]}]
    result = score("charades", write("p.json", {"V": {"q": answer(1, 9.5)}}), write("g.json", rows))
    assert result.metrics["mIoU"] == 100 and result.counts["queries"] == 1


def test_repeated_keys_are_counted(write):
    text = '{"V": {"q": {"start": 0, "end": 1}, "q": {"start": 2, "end": 8}}}'
    result = score("charades", write("p.json", text), write("g.json", annotation(("q", 2, 8))))
    assert result.counts["duplicate_keys"] == 1
    assert result.metrics["mIoU"] == 100


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"V": {"q": {"start": "x", "end": 1}}}, r"V, 'q': expected \[start, end\]"),
        ('{"V": {"q": {"start": NaN, "end": 1}}}', "two finite numbers"),
        ([{"qid": 1}], "is this another benchmark"),
        ({"V": {"q": [1, 2]}}, "is this another benchmark"),
        ({"W": {"q": {"start": 0, "end": 1}}}, "another benchmark or split"),
        ('{"V": ', "line 1, column 7: not JSON"),
    ],
)
def test_errors_name_the_place(write, predictions, message):
    with pytest.raises(FileError, match=message):
        score("charades", write("p.json", predictions), write("g.json", annotation(("q", 2, 8))))


def test_wrong_annotation_file(write):
    with pytest.raises(FileError, match="give charades_sta_test.json"):
        score("charades", write("p.json", {}), write("g.json", {"v_1": {"timestamps": []}}))


times = st.decimals(0, 60, places=2).map(float)
windows = st.tuples(times, times).map(sorted).map(tuple)


@given(st.lists(st.tuples(windows, windows), min_size=1, max_size=8), st.randoms())
def test_properties(pairs, random):
    queries = [Moment("V", str(i), window, None) for i, (window, _) in enumerate(pairs)]
    predictions = {("V", str(i)): predicted for i, (_, predicted) in enumerate(pairs)}
    metrics = evaluate(predictions, queries).metrics
    assert 100 >= metrics["R1@0.3"] >= metrics["R1@0.5"] >= metrics["R1@0.7"] >= 0
    assert 0 <= metrics["mIoU"] <= 100
    random.shuffle(queries)
    assert evaluate(predictions, queries).metrics == pytest.approx(metrics)


@given(st.lists(windows.filter(lambda window: window[0] < window[1]), min_size=1))
def test_perfect_predictions_score_100(perfect):
    queries = [Moment("V", str(i), window, None) for i, window in enumerate(perfect)]
    result = evaluate({("V", query.text): query.window for query in queries}, queries)
    assert result.metrics == dict.fromkeys(result.metrics, pytest.approx(100))


def test_published_predictions(shared, size, reference):
    pred = shared / f"predictions_{size}/Charades-STA/results.json"
    result = score(
        "charades", pred, shared / "annotations/charades/charades_sta_test.json", published=True
    )
    published = reference["Charades-STA"][size]
    as_run = {
        f"R{rank}@{t}_float32": 100 * published[f"R@{rank}_IoU{t}0"]
        for rank in (1, 5)
        for t in (0.3, 0.5, 0.7)
    }
    as_run["mIoU_truncated"] = published["mIoU(cal_miou, mean of int(IoU*100))"]
    assert result.published_as_run == pytest.approx(as_run, abs=1e-6)
    exact = reference["_variants"]["exact rational arithmetic"][f"Charades {size}"]
    headline = {f"R1@{t}": 100 * exact[f"hits@{t}"] / exact["N"] for t in (0.3, 0.5, 0.7)}
    assert result.metrics == pytest.approx({**headline, "mIoU": exact["mIoU"]}, abs=1e-6)
    clipped = reference["_variants"]["simple (Charades, ANet, QVH, NExT-GQA)"]["Charades-STA"][size]
    result = score("charades", pred, shared / "annotations/charades/test_float.json")
    for name, value in result.metrics.items():
        key = (
            "mIoU exact float64 (percent)" if name == "mIoU" else f"{name} exact float64 (percent)"
        )
        assert value == pytest.approx(clipped[f"{key} gt_clipped"], abs=1e-6)
