"""The released result files, written again by our code from what they say was answered."""

import json
import re
from pathlib import Path

import pytest

from distime.benchmarks import find
from distime.evaluate.settings import Settings
from distime.processing.answers import Answer, Event

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def released(tmp_path):
    """Make a benchmark over a released annotation; return it with its queries and result file."""
    if not RELEASED.is_dir():
        pytest.skip(f"the released annotations and predictions are not at {RELEASED}")
    (tmp_path / "config.json").write_text("{}")

    def load(name, annotation, predictions, /, **settings):
        settings = {
            "checkpoint": tmp_path,
            "benchmark": name,
            "annotation": RELEASED / "annotations" / annotation,
            "video_root": tmp_path,
            "out_dir": tmp_path,
            "score": False,
        } | settings
        benchmark = find(name)(Settings(**settings))
        return benchmark, list(benchmark.queries()), RELEASED / "predictions_1B" / predictions

    return load


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def spans(intervals, text="", duration=100.0):
    return Answer(text, tuple(Event(*interval) for interval in intervals), duration)


def test_charades(released, tmp_path):
    benchmark, queries, path = released(
        "charades", "charades/test_float.json", "Charades-STA/results.json"
    )
    expected = read(path)
    assert len(queries) == 3720
    answered = []
    for query in queries:
        entry = expected[query.video][query.item["query"]]
        # Only the first of several times counts, rounded to 0.01 s.
        first = (entry["start"] + 0.001, entry["end"] - 0.001)
        answered.append((query, spans([first, (0, 1)])))
    assert read(benchmark.write(answered, tmp_path)) == expected


def test_anet(released, tmp_path):
    benchmark, queries, path = released("anet", "anet/val_2.json", "ANet-Caption/results.json")
    expected = read(path)["results"]
    answered = [(query, spans(expected[query.id]["timestamp"])) for query in queries]
    written = read(benchmark.write(answered, tmp_path))["results"]
    assert written == expected
    assert list(written) == list(expected) and len(written) == 17031


def test_qvh(released, tmp_path):
    benchmark, queries, path = released("qvh", "qvhighlights/val.json", "QVHighlight/results.json")
    expected = read(path)
    answered = [
        (query, spans(json.loads(row["prediction"]), duration=row["duration"]))
        for query, row in zip(queries, expected, strict=True)
    ]
    assert read(benchmark.write(answered, tmp_path)) == expected


def test_youcook2(released, tmp_path):
    benchmark, queries, path = released(
        "youcook2_dvc",
        "youcook2_dvc/val.caption_coco_format.json",
        "YouCook2-DVC/results.json",
    )
    expected = read(path)
    answered = []
    for query in queries:
        events = [Event(*e["timestamp"], text=e["caption"]) for e in expected[query.video]]
        wordless = Event(1, 2)  # describes nothing
        answered.append((query, Answer("", (wordless, *events), 100.0)))
    written = read(benchmark.write(answered, tmp_path))
    assert written == expected and list(written) == list(expected)


def test_anet_dvc(released, tmp_path):
    benchmark, queries, path = released(
        "anet_dvc", "anet/val_2.json", "ANet-Caption-DVC/results.txt"
    )
    expected = [json.loads(line) for line in path.read_text().splitlines()]
    answered = []
    for query, row in zip(queries, expected, strict=True):
        assert query.video == row["video_id"]
        events = json.loads(row["answer"])
        times = [map(float, event["timestamps"].split(" - ")) for event in events]
        shown = [Event(*t, text=e["event"]) for t, e in zip(times, events, strict=True)]
        answered.append((query, Answer("", tuple(shown), 100.0)))
    written = [json.loads(x) for x in benchmark.write(answered, tmp_path).read_text().splitlines()]
    for ours, row in zip(written, expected, strict=True):
        assert ours.pop("time_unit") == "seconds"
        events = json.loads(ours.pop("answer"))
        published = [e for e in json.loads(row.pop("answer")) if e["event"]]
        assert [e["event"] for e in events] == [e["event"] for e in published]
        for event, other in zip(events, published, strict=True):
            times = [float(x) for x in event["timestamps"].split(" - ")]
            assert times == [float(x) for x in other["timestamps"].split(" - ")]
        assert ours == row


def test_nextgqa(released, tmp_path):
    annotation = "nextgqa/test.json"
    benchmark, queries, path = released(
        "nextgqa", annotation, "NExtGQA/result_timestamp.json", stage=1
    )
    expected = read(path)
    answered = [
        (query, spans([row["timestamp"]])) for query, row in zip(queries, expected, strict=True)
    ]
    assert read(benchmark.write(answered, tmp_path)) == expected
    assert len(queries) == 8564

    # Stage 2 finds what stage 1 has just written.
    benchmark, queries, path = released("nextgqa", annotation, "NExtGQA/result.json", stage=2)
    expected = read(path)
    answered = [
        (query, Answer(f"Answer: ({row['prediction']}) because (4)"))
        if row["prediction"] != -1
        else (query, Answer("I do not know"))
        for query, row in zip(queries, expected, strict=True)
    ]
    assert read(benchmark.write(answered, tmp_path)) == expected
    assert all(
        query.bound == tuple(row["timestamp"]) for query, row in zip(queries, expected, strict=True)
    )


@pytest.mark.parametrize("frames", [16, 32])
def test_longvideobench(frames, released, tmp_path):
    benchmark, queries, path = released(
        "longvideobench",
        "longvideobench/lvb_val.json",
        f"LongVideoBench/{frames}frame_result.json",
        num_segments=frames if frames == 16 else None,
    )
    expected = {row["task_type"]: row for row in read(path)}  # in the order of eight processes
    answered = [(query, Answer(expected[query.id]["pred"])) for query in queries]
    written = read(benchmark.write(answered, tmp_path))
    assert {row["task_type"]: row for row in written} == expected
    assert len(written) == 1337
    metrics = path.with_name(f"{frames}frame_metrics.json")
    assert read(tmp_path / "metrics.json") == read(metrics)


def test_mvbench(released, tmp_path):
    """The annotation is not released with the predictions: take it from the questions."""
    rows = read(RELEASED / "predictions_1B/MVBench/MVBench.json") if RELEASED.is_dir() else []
    files = {}
    for row in rows:
        question, options = re.search(
            r"\n\nQuestion: (.*)\nOptions:\n(.*)\nOnly give", row["question"], re.DOTALL
        ).groups()
        item = {
            "video": "a.mp4",
            "question": question,
            "candidates": [option[4:] for option in options.split("\n")],
            "answer": row["gt"][4:],
            "start": 0,
            "end": 1,
        }
        stem = row["task_type"].lower().replace(" ", "_")
        files.setdefault(stem, []).append(item)
    for stem, items in files.items():
        (tmp_path / f"{stem}.json").write_text(json.dumps(items))
    benchmark, queries, _ = released("mvbench", ".", ".", annotation=tmp_path)
    answered = [(q, Answer(row["pred"])) for q, row in zip(queries, rows, strict=True)]
    assert read(benchmark.write(answered, tmp_path)) == rows
    assert read(tmp_path / "MVBench_result_final.json")["Action Sequence"] == 86.5
