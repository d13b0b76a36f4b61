from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.benchmarks.anet import AnnotatedVideo, evaluate
from distime.files import FileError

GT = {
    "v_a": {"duration": 30.0, "timestamps": [[0, 10], [10, 30]], "sentences": ["x.", " ü."]},
    "v_b": {"duration": 20.0, "timestamps": [[5, 15]], "sentences": ["z."]},
}


def results(**windows: list) -> dict:
    return {"results": {key.replace("__", "-"): {"timestamp": w} for key, w in windows.items()}}


def test_by_hand(write):
    # IoU 1, 5/20 and a later window that does not count, 8/12.
    pred = results(v_a__0=[[0, 10]], v_a__1=[[10, 15], [10, 30]], v_b__0=[[7, 17]])
    result = score("anet", write("p.json", pred), write("g.json", GT), published=True)
    assert result.metrics == pytest.approx(
        {"R1@0.3": 200 / 3, "R1@0.5": 200 / 3, "R1@0.7": 100 / 3, "mIoU": (1 + 0.25 + 2 / 3) / 0.03}
    )
    assert result.published_as_run["R1@0.3_float32"] == 100 * float(np.float32(2) / np.float32(3))
    assert result.published_as_run["mIoU"] == result.metrics["mIoU"]


def test_a_tie_is_below_the_threshold_and_counted(write):
    pred = results(v_a__0=[[0, 5]], v_a__1=[[10, 30]], v_b__0=[[5, 15]])
    result = score("anet", write("p.json", pred), write("g.json", GT))
    assert result.metrics["R1@0.5"] == pytest.approx(200 / 3)
    assert result.counts["ties_below_threshold"] == 1


def test_missing_reversed_and_unanswered_are_misses_and_counted(write):
    pred = results(v_a__0=[[9, 1]], v_b__0=[], v_c__0=[[0, 1]])
    result = score("anet", write("p.json", pred), write("g.json", GT))
    assert result.metrics == dict.fromkeys(result.metrics, 0)
    assert result.counts == {
        "queries": 3,
        "videos": 2,
        "missing": 1,
        "no_answer": 1,
        "reversed": 1,
        "out_of_range": 0,
        "ties_below_threshold": 0,
        "duplicate_keys": 0,
        "unknown": 1,
    }


def test_single_point_and_out_of_range(write):
    pred = results(v_a__0=[[5, 5]], v_a__1=[[-2, 30]], v_b__0=[[5, 25]])
    result = score("anet", write("p.json", pred), write("g.json", GT))
    assert result.metrics["mIoU"] == pytest.approx(100 * (0 + 20 / 32 + 10 / 20) / 3)
    assert result.counts["out_of_range"] == 2


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        ({"v_a-0": {"timestamp": [[0, 1]]}}, 'expected {"results"'),
        ({"results": {"v_a-0": {"timestamp": [[0]]}}}, "p.json, v_a-0: expected .start, end."),
        ('{"results": {"v_a-0": {"timestamp": [[0, Infinity]]}}}', "two finite numbers"),
        ({"results": {"w-0": {"timestamp": [[0, 1]]}}}, "another benchmark or split"),
    ],
)
def test_errors_name_the_place(write, pred, message):
    with pytest.raises(FileError, match=message):
        score("anet", write("p.json", pred), write("g.json", GT))


@pytest.mark.parametrize(
    ("gt", "message"),
    [
        ([], "give val_2.json"),
        ({"v": {"duration": 3}}, "g.json, v: not an ActivityNet"),
        ({"v": {"duration": 3, "timestamps": [[0, 1]], "sentences": []}}, "1 timestamps but 0"),
    ],
)
def test_wrong_annotation(write, gt, message):
    with pytest.raises(FileError, match=message):
        score("anet", write("p.json", results()), write("g.json", gt))


times = st.decimals(0, 60, places=2).map(float)
windows = st.tuples(times, times)


@given(st.lists(st.tuples(windows, windows), min_size=1, max_size=8))
def test_properties(pairs):
    videos = {
        f"v{i}": AnnotatedVideo(60.0, [tuple(sorted(gt))], ["x"]) for i, (gt, _) in enumerate(pairs)
    }
    predictions = {f"v{i}-0": predicted for i, (_, predicted) in enumerate(pairs)}
    metrics = evaluate(predictions, videos).metrics
    assert 100 >= metrics["R1@0.3"] >= metrics["R1@0.5"] >= metrics["R1@0.7"] >= 0
    assert 0 <= metrics["mIoU"] <= 100
    backwards = dict(reversed(videos.items()))
    assert evaluate(predictions, backwards).metrics == pytest.approx(metrics)
    perfect = {f"{name}-0": video.windows[0] for name, video in videos.items()}
    long = all(video.windows[0][1] > video.windows[0][0] for video in videos.values())
    if long:
        assert evaluate(perfect, videos).metrics["R1@0.7"] == 100
        assert evaluate(perfect, videos).metrics["mIoU"] == pytest.approx(100, abs=1e-3)
