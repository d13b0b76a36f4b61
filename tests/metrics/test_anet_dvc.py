from __future__ import annotations

import json

import pytest

from distime.benchmarks import score
from distime.benchmarks.anet_dvc import Narration, merge_repeats, read_log
from distime.files import FileError

GT = {
    "v_a": {
        "duration": 200.0,
        "timestamps": [[100, 150], [0, 50]],  # not in order
        "sentences": [" He sits down.", "A man ruñs."],
    },
    "v_b": {"duration": 50.0, "timestamps": [[0, 50]], "sentences": ["Rain falls."]},
    "v_c": {"duration": 50.0, "timestamps": [[0, 50]], "sentences": ["Snow falls."]},
}


def line(video: str, *events: tuple[str, str], **more: object) -> str:
    answer = json.dumps([{"event": text, "timestamps": times} for text, times in events])
    return json.dumps({"video_id": video, "task": "captioning", "answer": answer, **more}) + "\n"


@pytest.mark.java
@pytest.mark.usefixtures("no_paraphrases")
def test_seconds_are_the_headline_and_percent_the_published_way(write):
    log = line("v_a", ("A man ru s.", "0 - 50"), ("He sits down.", "100 - 150")) + line("v_b")
    pred, gt = write("log.txt", log), write("g.json", GT)
    result = score("anet_dvc", pred, gt, published=True)
    # The first video is perfect (non-ASCII letters become spaces), the others are empty.
    assert result.metrics["SODA_c"] == pytest.approx(100 / 3, abs=1e-5)
    assert result.metrics["METEOR"] == pytest.approx(100 / 3)
    assert result.metrics["Precision"] == result.metrics["Recall"] == pytest.approx(100 / 3)
    assert result.metrics["F1@0.9"] == pytest.approx(100 / 3)
    assert result.counts["missing"] == 1 and result.counts["without_events"] == 1
    # As percent of 200 s: [0, 102] and [200, 302]; IoU 50/102 with the first. v_c is dropped.
    as_run = result.published_as_run
    assert as_run["Precision@0.3_seconds_as_percent"] == pytest.approx(100 * (1 / 2) / 2)
    assert as_run["Recall@0.3_seconds_as_percent"] == pytest.approx(100 * (1 / 2) / 2)
    assert as_run["Precision@0.5_seconds_as_percent"] == 0
    # The annotation meets [0, 102] twice at 0.3: [100, 150] does not, IoU 2/150.
    assert as_run["SODA_c_seconds_as_percent"] == pytest.approx(100 * (50 / 102) / 2 / 2, abs=1e-5)


@pytest.mark.java
@pytest.mark.usefixtures("no_paraphrases")
def test_a_log_in_percent(write):
    log = line("v_a", ("A man ru s.", "0 - 24"), ("He sits down.", "50 - 74"))
    log += line("v_b", ("Rain falls.", "0 - 50"), time_unit="seconds")
    pred, gt = write("log.txt", log), write("g.json", GT)
    result = score("anet_dvc", pred, gt, time_unit="percent")
    # [0, 25) % of 200 s is the first window; the second line names its own unit.
    assert result.metrics["SODA_c"] == pytest.approx(200 / 3, abs=1e-5)
    assert result.metrics["CIDEr"] > 0


@pytest.mark.java
@pytest.mark.usefixtures("no_paraphrases")
def test_unknown_videos_and_windows_beyond_the_end_are_counted(write):
    log = line("v_b", ("Rain falls.", "0 - 52"), ("x.", "9 - 3")) + line("v_z", ("y.", "0 - 9"))
    result = score("anet_dvc", write("log.txt", log), write("g.json", GT), published=True)
    assert result.counts["unknown"] == result.counts["out_of_range"] == 1
    assert result.counts["reversed"] == 1
    assert result.published_as_run == {} and "KeyError" in result.warnings[0]


def test_log_lines_are_counted(write):
    log = (
        line("v_a", ("one.", "0 - 5"))
        + "not json\n\n"
        + line("v_a", ("two.", "1.5 - 7"), ("bad.", "7"), ("three.", "7 - 9"))
        + json.dumps({"video_id": "v_b", "answer": "[{"})
        + "\n"
        + json.dumps({"video_id": "v_c", "answer": [{"event": "x", "timestamps": "3 - 1"}]})
    )
    read = read_log(write("log.txt", log))
    assert read.answers == {
        "v_a": Narration([(1.5, 7.0)], ["two."], "seconds"),
        "v_b": Narration([], [], "seconds"),
        "v_c": Narration([(3.0, 1.0)], ["x"], "seconds"),
    }
    assert read.counts == {"duplicates": 1, "bad_lines": 1, "bad_answers": 2}


def test_repeats_are_merged():
    text = "a man is seen standing in a gym and lifting a heavy weight over his head"
    answer = Narration(
        [(0, 5), (6, 9), (9, 12), (14, 20), (20, 30)],
        [text, text, text + ".", text, "a dog runs"],
        "seconds",
    )
    merged = merge_repeats(answer)
    assert merged.windows == [(0, 12), (14, 20), (20, 30)]
    assert merged.captions == [text, text, "a dog runs"]
    assert merge_repeats(Narration([], [], "percent")) == Narration([], [], "percent")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("[]\n{}\n", "is this another benchmark"),
        (line("v_z", ("x", "0 - 1")), "none of its 1 videos"),
        (line("v_a", time_unit="frames"), "line 1: time_unit 'frames'"),
    ],
)
def test_errors_name_the_place(write, log, message):
    with pytest.raises(FileError, match=message):
        score("anet_dvc", write("log.txt", log), write("g.json", GT))


def grounding(video: str, answer: str, **info: object) -> str:
    return json.dumps({"video_id": video, "task": "grounding", "answer": answer, "info": info})


def test_grounding_task(write):
    log = "\n".join(
        [
            grounding("v_a", "From 100 to 125.", sentence_id=0),
            grounding("v_b", "I cannot tell.", sentence_id=0),
            grounding("v_c", "ignored", iou=0.7),
        ]
    )
    pred, gt = write("log.txt", log), write("g.json", GT)
    result = score("anet_dvc", pred, gt, task="grounding")
    assert result.metrics == pytest.approx(
        {"R1@0.3": 200 / 3, "R1@0.5": 200 / 3, "R1@0.7": 100 / 3, "mIoU": 40}
    )
    assert result.counts["bad_answers"] == 1
    percent = score("anet_dvc", pred, gt, task="grounding", time_unit="percent")
    assert percent.metrics["R1@0.3"] == pytest.approx(100 / 3)
    with pytest.raises(FileError, match="no annotated sentence 7"):
        bad = write("bad.txt", grounding("v_a", "1 - 2", sentence_id=7))
        score("anet_dvc", bad, gt, task="grounding")
    with pytest.raises(FileError, match="no line of task"):
        score("anet_dvc", write("log2.txt", line("v_a")), gt, task="grounding")
