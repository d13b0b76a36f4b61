"""Captions and predictions in files: what is taken, and what is wrong with them by line."""

import json

import pytest

from annotate.conftest import NAMES, lines
from distime.errors import DisTimeError

A, B = "The red square is visible.", "The blue ring is visible."


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def all_videos(**values):
    return [{"video": name, **values} for name in NAMES]


@pytest.fixture
def describe(annotate, tmp_path):
    """Run the first stage with a captions file; return the events by video."""

    def describe(path):
        report = annotate(stages=["events"], captioner=[f"file:{path}"])
        return report, {one["video"]: one for one in lines(tmp_path / "out" / "events.jsonl")}

    return describe


def test_every_form_of_captions(describe, write, tmp_path):
    path = write(
        {"video": "a.mp4", "captions": [A, {"text": B, "start": 1, "end": 2.5}]},
        {"video": "b", "text": A},
        {"video": "deep er/b.mp4", "caption": B, "start": 0, "end": 99, "confidence": 0.5},
        {"video": "./c.mp4", "events": [{"event": A}]},
    )
    report, events = describe(path)
    first, second = events["a.mp4"]["events"]
    assert first["text"] == A and "locations" not in first
    assert second["locations"] == {"file-rows": {"start": 1.0, "end": 2.5}}
    assert [one["text"] for one in events["deep er/b.mp4"]["events"]] == [A, B]
    assert events["deep er/b.mp4"]["events"][1]["locations"]["file-rows"]["end"] == 6.0
    assert set(events) == {"a.mp4", "deep er/b.mp4", "c.mp4"}
    assert report.failed == 1
    problems = {one.get("video"): one for one in lines(tmp_path / "out" / "problems.jsonl")}
    assert "no caption of d.mp4" in problems["d.mp4"]["why"]
    assert "rows.jsonl:3: interval [0.0, 99.0] leaves" in problems["deep er/b.mp4"]["why"]


def test_captions_of_strange_videos_are_named(describe, write, tmp_path):
    describe(write(*all_videos(text=A), {"video": "z.mp4", "text": A}, {"video": "z", "text": B}))
    strange = [one["why"] for one in lines(tmp_path / "out" / "problems.jsonl")]
    assert len(strange) == 2 and "rows.jsonl:5" in strange[0] and '"z.mp4"' in strange[0]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"video": "z.mp4", "text": A}, "other videos: .*rows.jsonl:1.*z.mp4.*a.mp4"),
        ({"text": A}, 'rows.jsonl:1: "video" is null'),
        ({"video": "a.mp4"}, 'rows.jsonl:1: "text" is null'),
        ({"video": "a.mp4", "captions": A}, "give a list"),
        ({"video": "a.mp4", "captions": [3]}, "a caption is 3"),
        ({"video": "a.mp4", "text": "  "}, "give the words"),
        ({"video": "a.mp4", "text": A, "start": 5, "end": 2}, "ends before it starts: swap"),
        ({"video": "a.mp4", "text": A, "start": -1, "end": 2}, "negative"),
        ({"video": "a.mp4", "text": A, "start": 1}, "two numbers"),
        (3, "expected an object"),
    ],
)
def test_wrong_captions_are_refused(describe, write, row, named):
    with pytest.raises(DisTimeError, match=named):
        describe(write(row))


def test_a_list_is_no_json_lines(describe, tmp_path):
    (tmp_path / "list.jsonl").write_text(json.dumps(all_videos(text=A), indent=1))
    with pytest.raises(DisTimeError, match=r"list\.jsonl:1: the file is one JSON list"):
        describe(tmp_path / "list.jsonl")


# ------------------------------------------------------------------ predictions


@pytest.fixture
def locate(annotate, describe, write, tmp_path):
    """Describe two events of each video, then run the second stage with predictions."""

    def locate(*rows):
        _, events = describe(write(*all_videos(captions=[A, B])))
        rows = [row(events) if callable(row) else row for row in rows]
        path = write(*rows, name="theirs.jsonl")
        annotate(stages=["locations"], locator=[f"file:theirs={path}"])
        found = lines(tmp_path / "out" / "locations" / "theirs.jsonl")
        return {one["video"]: one.get("locations", {}) for one in found}, events

    return locate


def test_predictions_by_id_and_by_words(locate, tmp_path):
    found, events = locate(
        lambda events: {"video": "a.mp4", "id": events["a.mp4"]["events"][1]["id"],
                        "start": 1, "end": 2, "confidence": 0.4},
        {"video": "a.mp4", "query": A, "start": 0, "end": 7.5},
        {"video": "b", "query": A, "start": 1, "end": 2, "confidence": 0.2},
        {"video": "b", "query": A, "start": 3, "end": 4, "confidence": 0.6},
        {"video": "b", "query": A, "start": 5, "end": 6, "confidence": 0.6},
    )  # fmt: skip
    first, second = (event["id"] for event in events["a.mp4"]["events"])
    assert found["a.mp4"] == {
        first: {"start": 0.0, "end": 6.0},
        second: {"start": 1.0, "end": 2.0, "confidence": 0.4},
    }
    (best,) = found["deep er/b.mp4"].values()
    assert (best["start"], best["confidence"]) == (3.0, 0.6)
    problems = {one["video"]: one["why"] for one in lines(tmp_path / "out" / "problems.jsonl")}
    assert "1 predictions end beyond" in problems["a.mp4"]
    assert "1 of 2 events have no location" in problems["deep er/b.mp4"]
    assert "no prediction for c.mp4" in problems["c.mp4"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"start": 5, "end": 2}, r"theirs.jsonl:1: interval \[5, 2\] ends before it starts: swap"),
        ({"start": 2, "end": 2}, "no length"),
        ({"start": "1", "end": 2}, "two numbers"),
        ({"start": 1, "end": 2, "confidence": 7}, "from 0 to 1, or leave it out"),
        ({"start": 60, "end": 70}, r"theirs.jsonl:1: interval.*behind the end of a.mp4, .* 6.0 s"),
        (
            {"start": 1, "end": 2, "query": "no such"},
            'theirs.jsonl:1: a.mp4 has no event "no such"',
        ),
        ({"start": 1, "end": 2, "id": "v0-0"}, 'has no event "v0-0".*events.jsonl'),
        ({"start": 1, "end": 2, "query": None}, 'give its "id", or its words as "query"'),
        ({"start": 1, "end": 2, "video": "z.mp4"}, "other videos"),
    ],
)
def test_wrong_predictions_are_refused(locate, row, named):
    with pytest.raises(DisTimeError, match=named):
        locate({"video": "a.mp4", "query": A} | row)


def test_all_wrong_lines_are_counted(locate):
    with pytest.raises(DisTimeError, match=r":1: .*\(3 lines of the file are wrong\)"):
        locate(*[{"video": "a.mp4", "query": A, "start": 5, "end": 2}] * 3)


def test_times_that_captions_brought(annotate, write, tmp_path):
    path = write(*all_videos(captions=[{"text": A, "start": 1, "end": 2}, B]))
    annotate(captioner=[f"file:mine={path}"], locator=["told:mine"])
    (kept,) = lines(tmp_path / "out" / "selected.jsonl")[0]["events"]
    assert (kept["text"], kept["start"], kept["end"], kept["locator"]) == (A, 1.0, 2.0, "told-mine")
    with pytest.raises(DisTimeError, match="told:his: no captioner has this name; there are mine"):
        annotate(captioner=[f"file:mine={path}"], locator=["told:his"])


def test_told_times_that_change_are_told_again(annotate, write, tmp_path):
    """The words, and with them the ids of the events, stay."""
    for start in (1.0, 3.0):
        path = write(*all_videos(captions=[{"text": A, "start": start, "end": 5}]))
        annotate(stages=["events"], captioner=[f"file:mine={path}"], overwrite=True)
        annotate(stages=["locations", "selection", "dialogues"], locator=["told:mine"])
        (kept,) = lines(tmp_path / "out" / "selected.jsonl")[0]["events"]
        assert kept["start"] == start
