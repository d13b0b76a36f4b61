from __future__ import annotations

import pytest

from distime.benchmarks import score
from distime.benchmarks.youcook2_dvc import evaluate
from distime.files import FileError

GT = {
    "annotations": [
        {
            "image_id": "a.mp4",
            "duration": 55.0,
            "segments": [[0, 10], [20, 30]],
            "pure_cap": "cut it. fry the rice",
        },
        {"image_id": "b.mp4", "segments": [[0, 10]], "pure_cap": "boil the água"},
        {"image_id": "c.mp4", "segments": [[0, 10]], "pure_cap": "serve the soup"},
    ]
}


def event(start: float, end: float, caption: str) -> dict:
    return {"timestamp": [start, end], "caption": caption}


@pytest.mark.java
@pytest.mark.usefixtures("no_paraphrases")
def test_by_hand(write):
    pred = {
        # Perfect, then an event that meets nothing; the second window is reversed.
        "a.mp4": [event(0, 10, "cut it."), event(30, 20, "fry the rice."), event(50, 60, "")],
        "b.mp4": [],
        "z.mp4": [event(0, 1, "unknown.")],
    }
    result = score("youcook2_dvc", write("p.json", pred), write("g.json", GT), published=True)
    metrics = result.metrics
    assert metrics["Precision"] == pytest.approx(100 * (2 / 3) / 3)
    assert metrics["Recall"] == pytest.approx(100 / 3)
    assert metrics["F1"] == pytest.approx(100 * 0.8 / 3)
    assert metrics["Precision@0.9"] == pytest.approx(metrics["Precision@0.3"])
    # Two perfect pairs: precision 2/3, recall 1 in the first video, 0 in the others.
    assert metrics["SODA_c"] == pytest.approx(100 * 0.8 / 3, abs=1e-5)
    # Summed over three pairs, content words weigh 3 and function words ("it", "the") 1: all of
    # the hypotheses match, but not the garbage word of the third reference.
    recall = (3 * 3 + 1 * 2) / (3 * 4 + 1 * 2)
    assert metrics["METEOR"] == pytest.approx(100 / (0.15 + 0.85 / recall) / 3)
    # N = 3 pairs; "cut it" has n-grams up to 2, "fry the rice" up to 3, all of them perfect.
    assert metrics["CIDEr"] == pytest.approx(100 * 10 * (2 / 4 + 3 / 4) / 3 / 3)
    assert metrics["n_preds"] == 1
    expected = {"missing": 1, "without_events": 2, "unknown": 1, "reversed": 1, "events": 3}
    expected["out_of_range"] = 1
    assert expected.items() <= result.counts.items()
    as_run = result.published_as_run
    assert as_run["SODA_c_permuted"] == pytest.approx(metrics["SODA_c"])
    # One paragraph against the first reference only.
    assert as_run["Para_METEOR_misaligned"] > metrics["Para_METEOR"] > 0


@pytest.mark.java
@pytest.mark.usefixtures("no_paraphrases")
def test_more_than_ten_events_permute_the_published_soda():
    windows = [(10.0 * i, 10.0 * i + 10) for i in range(12)]
    verbs = ["cut", "fry", "boil", "mix", "add", "pour", "peel", "wash", "dry", "eat", "stir"]
    captions = [f"{verb} it." for verb in [*verbs, "heat"]]
    events = {"a": (windows, captions)}
    result = evaluate(events, events, published=True)
    assert result.metrics["SODA_c"] == pytest.approx(100, abs=1e-5)
    assert result.metrics["F1"] == pytest.approx(100)
    assert result.metrics["METEOR"] == pytest.approx(100)
    assert result.metrics["CIDEr"] == pytest.approx(100 * 10 * 2 / 4)
    # Only the first two ids keep their place in '0', '1', '10', '11', '2', ...
    assert result.published_as_run["SODA_c_permuted"] < 60


@pytest.mark.java
@pytest.mark.usefixtures("no_paraphrases")
def test_the_order_of_videos_does_not_matter():
    annotations = {
        "a": ([(0, 10), (20, 30)], ["cut the onion.", "fry the rice."]),
        "b": ([(0, 10)], ["boil the water in a pot."]),
    }
    predictions = {
        "b": ([(2, 12), (0, 9)], ["boil some water.", "a pot."]),
        "a": ([(1, 9), (15, 31)], ["cut an onion.", "fry the rice in oil."]),
    }
    metrics = evaluate(predictions, annotations).metrics
    assert metrics["CIDEr"] > 0 and 0 < metrics["SODA_c"] < 100
    backwards = dict(reversed(annotations.items()))
    assert evaluate(predictions, backwards).metrics == pytest.approx(metrics)


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        ([], "is this another benchmark"),
        ({"a.mp4": {"timestamp": [0, 1]}}, "a.mp4: expected"),
        ({"a.mp4": [{"timestamp": [0, 1]}]}, "a.mp4, event 1: expected"),
        ({"a.mp4": [{"timestamp": [0], "caption": "x"}]}, "event 1: expected .start, end."),
        ({"a.mp4": [{"timestamp": [0, 1], "caption": 3}]}, "the caption is not a text"),
        ({"z.mp4": []}, "none of its 1 videos"),
    ],
)
def test_errors_name_the_place(write, pred, message):
    with pytest.raises(FileError, match=message):
        score("youcook2_dvc", write("p.json", pred), write("g.json", GT))


def test_wrong_annotation(write):
    gt = {"annotations": [{"image_id": "a", "segments": [[0, 1]], "pure_cap": "x. y"}]}
    with pytest.raises(FileError, match="g.json, a: 1 segments but 2 captions"):
        score("youcook2_dvc", write("p.json", {}), write("g.json", gt))
    with pytest.raises(FileError, match="not a YouCook2 annotation"):
        score("youcook2_dvc", write("p.json", {}), write("g.json", {"v_a": {}}))
