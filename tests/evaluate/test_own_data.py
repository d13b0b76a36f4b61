"""A user's own file in the training format: asked, scored and reported like a benchmark."""

import json
import math
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.benchmarks.own_data import read_own_file, task_of
from distime.cli import main
from distime.data.problems import AnnotationError
from distime.files import FileError
from distime.metrics.interval_sets import matched_f1
from evaluate.tiny_benchmarks import write_json

GROUND = "<video>\nWhen does the red circle appear?"
CHOOSE = "<video>\nWhat is seen?\nA. A circle.\nB. A square."
STEPS = "<video>\nWhich steps are there?"


def item(video, question, answer, *tgt, **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"video": video, "conversations": turns, **({"tgt": list(tgt)} if tgt else {}), **more}


def write_lines(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in items), encoding="utf-8")
    return path


ITEMS = [
    item("a.mp4", GROUND, "At <TIME_STAMP>.", 1, 3),
    item("a.mp4", "Twice?", "At <TIME_STAMP> and at <TIME_STAMP>.", 0, 1, 4, 6),
    item("a.mp4", STEPS, "<TIME_STAMP>, he cuts bread. <TIME_STAMP>, he eats it.", 0, 2, 2, 5),
    item("a.mp4", CHOOSE, "B. A square."),
]


def answers(*rows):
    """Predictions of the lines of ITEMS: (line, words or None, intervals)."""
    return [
        {
            "id": str(line),
            "video": "a.mp4",
            "question": ITEMS[line - 1]["conversations"][0]["value"],
            "answer": words,
            "intervals": intervals,
        }
        for line, words, intervals in rows
    ]


@pytest.fixture
def held_out(tmp_path):
    return write_lines(tmp_path / "own" / "held_out.jsonl", ITEMS)


def scored(held_out, rows, name="results.json"):
    return score("own_data", write_json(held_out.parent / name, rows), held_out)


@pytest.mark.java
def test_every_kind_is_scored_by_its_own_metrics(held_out):
    said = "<TIME_STAMP>, he cuts bread. <TIME_STAMP>, he eats it."
    rows = answers(
        (1, "At <TIME_STAMP>.", [[2, 4]]),
        (2, "<TIME_STAMP> <TIME_STAMP>", [[4, 6], [0, 1]]),
        (3, said, [[0, 2], [2, 5]]),
        (4, "A", []),
    )
    result = scored(held_out, rows)
    metrics = result.metrics
    assert metrics["mIoU"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert metrics["R1@0.3"] == 100 and metrics["R1@0.5"] == 50
    assert metrics["set_mIoU"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert metrics["set_F1@0.7"] == 50 and metrics["set_F1@0.3"] == 100
    assert metrics["caption_F1"] == pytest.approx(100) and metrics["SODA_c"] > 90
    assert metrics["Accuracy"] == 0
    assert [result.counts[task] for task in ("grounding", "captioning", "choice")] == [2, 1, 1]
    assert not result.warnings
    # The command takes the file in place of a benchmark's name.
    command = ["score", str(held_out), str(held_out.parent / "results.json")]
    assert main([*command, "--output", str(held_out.parent / "out.json")]) == 0
    assert json.loads((held_out.parent / "out.json").read_text())["metrics"] == dict(metrics)


def test_only_what_was_asked_is_scored_and_that_is_said(held_out):
    result = scored(held_out, answers((1, "At <TIME_STAMP>.", [[1, 3]])))
    assert result.metrics["mIoU"] == 100 and "Accuracy" not in result.metrics
    assert result.warnings == ("1 of 4 items were asked and are scored.",)
    # A video that could not be used was asked all the same.
    result = scored(held_out, answers((1, None, []), (4, "B", [])))
    assert result.metrics["mIoU"] == 0 and result.metrics["Accuracy"] == 100
    assert result.counts["no_answer"] == 1


def test_without_java_the_times_of_captions_are_scored(held_out, monkeypatch):
    monkeypatch.setenv("PATH", "")
    said = "<TIME_STAMP>, one thing<TIME_STAMP>, another"
    result = scored(held_out, answers((3, said, [[0, 2], [5, 2]])))
    assert result.metrics["caption_F1"] == pytest.approx(100)  # a reversed window is repaired
    assert "SODA_c" not in result.metrics and "need Java" in result.warnings[-1]


def test_predictions_of_another_file_are_refused(held_out):
    rows = answers((1, "x", []))
    rows[0]["question"] = "Another?"
    with pytest.raises(FileError, match="id 1: it answers another question .*held_out.jsonl:1"):
        scored(held_out, rows)
    rows[0]["id"] = "9"
    with pytest.raises(FileError, match="answers nothing"):
        scored(held_out, rows)
    with pytest.raises(FileError, match="row 2: the id '1' is there twice"):
        scored(held_out, answers((1, "x", []), (1, "x", [])))


@pytest.mark.parametrize(
    ("question", "answer", "named", "task"),
    [
        (GROUND, "The event is depicted at <TIME_STAMP>.", None, "grounding"),
        (GROUND, "<TIME_STAMP> and <TIME_STAMP>.", None, "grounding"),
        (STEPS, "<TIME_STAMP>, he cuts.<TIME_STAMP>, he eats.", None, "captioning"),
        (STEPS, "First, at <TIME_STAMP>, he cuts.", "captioning", "captioning"),
        (GROUND, "<TIME_STAMP> is when it happens.", "grounding", "grounding"),
        (CHOOSE, "(B) A square.", None, "choice"),
        (CHOOSE, "A circle", None, "choice"),
        ("Is it red?", "Yes.", None, None),
    ],
)
def test_what_an_answer_is(question, answer, named, task):
    assert task_of(question, answer, named, "f:1") == task


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (item("a.mp4", CHOOSE, "Nobody knows.", task="choice"), '"task" is "choice"'),
        (item("a.mp4", CHOOSE, "B", task="grounding"), '"task" is "grounding"'),
        (item("a.mp4", CHOOSE, "B", task="quiz"), '"task" is "quiz": give one of grounding'),
        (item("a.mp4", GROUND, "At <TIME_STAMP>.", 3), "tgt"),
        (item("a.mp4", GROUND, "At <TIME_STAMP>.", 5, 3), "ends before it starts"),
        ("no item", "must be a JSON object"),
    ],
)
def test_errors_name_file_and_line(tmp_path, line, problem):
    path = write_lines(tmp_path / "mine.jsonl", [ITEMS[0], line])
    with pytest.raises(AnnotationError, match=problem) as raised:
        read_own_file(path)
    assert str(raised.value).startswith(f"{path}:2: ")


def test_what_cannot_be_asked_is_named(tmp_path):
    more = item("a.mp4", GROUND, "At <TIME_STAMP>.", 1, 2, 3, 4)
    more["conversations"] += [
        {"from": "human", "value": "And then?"},
        {"from": "gpt", "value": "At <TIME_STAMP>."},
    ]
    other = item("a.mp4", GROUND, "At <TIME_STAMP>.", 1, 2)
    other["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    picture = {"image": "a.png", "conversations": ITEMS[3]["conversations"]}
    picture["conversations"] = [
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "A dog."},
    ]
    lines = [
        ITEMS[0],
        more,
        other,
        picture,
        item("a.mp4", "What is at <TIME_STAMP>?", "A dog.", 1, 2),
        item("a.mp4", "Is it red?", "Yes."),
    ]
    found = read_own_file(write_lines(tmp_path / "mine.jsonl", lines))
    assert [(one.id, one.windows) for one in found.items] == [("1", ((1, 3),)), ("2", ((1, 2),))]
    said = found.warnings()
    for line, words in enumerate(
        ["beyond their first question", "system message", "without a video",
         "questions that hold <TIME_STAMP>", "no option"], 2
    ):  # fmt: skip
        assert any(words in one and one.endswith(f"mine.jsonl:{line}") for one in said), words


def test_a_meta_file_names_sources_and_their_folders(tmp_path):
    write_lines(tmp_path / "a.jsonl", ITEMS[:2])
    write_lines(tmp_path / "b.jsonl", ITEMS[:1])
    for folder in ("one", "two"):
        (tmp_path / "videos" / folder).mkdir(parents=True)
    meta = {
        "a": {"root": "videos/one", "annotation": "a.jsonl", "repeat_time": 3},
        "b": {"root": "videos/two", "annotation": "b.jsonl"},
    }
    found = read_own_file(write_json(tmp_path / "meta.json", meta))
    assert [(one.id, one.video) for one in found.items] == [
        ("a:1", "one/a.mp4"), ("a:2", "one/a.mp4"), ("b:1", "two/a.mp4"),
    ]  # fmt: skip


times = st.tuples(st.integers(0, 20), st.integers(1, 9)).map(lambda one: (one[0], sum(one)))


@given(st.lists(times, max_size=4), st.lists(times, max_size=4))
def test_one_to_many_f1_is_the_best_matching(predicted, truth):
    from itertools import permutations

    from distime.metrics.intervals import reaches

    small, large = sorted((predicted, truth), key=len)
    best = max(
        sum(reaches(a, b, 0.5) for a, b in zip(small, order, strict=False))
        for order in permutations(large)
    )
    total = len(predicted) + len(truth)
    assert matched_f1(predicted, truth, 0.5) == pytest.approx(2 * best / total if total else 1)


# ------------------------------------------------------------------------------ end to end


def test_asked_scored_resumed_and_reported(checkpoint, videos, tmp_path, monkeypatch, capsys):
    root, specs = videos
    monkeypatch.setenv("DISTIME_HOME", str(tmp_path))
    lines = [
        item(spec.file_name, f"<video>\nWhen: {event.query}", "At <TIME_STAMP>.",
             event.start, event.end)
        for spec in specs for event in spec.events[:2]
    ]  # fmt: skip
    lines.append(item(specs[0].file_name, CHOOSE, "B. A square."))
    held_out = write_lines(tmp_path / "own" / "held_out.jsonl", lines)
    for spec in specs:
        shutil.copy(root / spec.file_name, held_out.parent)
    command = ["evaluate", str(held_out), "--checkpoint", str(checkpoint), "--device", "cpu"]
    command += ["--num-segments", "4", "--max-new-tokens", "12", "--workers", "1"]
    assert main([*command, "--limit", "2"]) == 0
    assert "scored are the 2 queries that were asked" in capsys.readouterr().out
    assert main(command) == 0
    out = capsys.readouterr()
    assert "Accuracy" in out.out and "set_F1" in out.out
    folder = tmp_path / "results" / "held_out" / checkpoint.name
    written = json.loads((folder / "results.json").read_text())
    assert [row["question"] for row in written] == [
        line["conversations"][0]["value"] for line in lines
    ]
    before = len(list((folder / "answers").iterdir()))
    assert main(command) == 0 and len(list((folder / "answers").iterdir())) == before
    assert main(["score", str(held_out)]) == 0  # the newest results of that file

    capsys.readouterr()
    for place in (folder, tmp_path / "results"):
        assert main(["report", str(place)]) == 0
        table = capsys.readouterr().out
        assert "| held_out | mIoU |" in table and "| held_out | SODA_c |" not in table
        assert main(["report", str(place), "--html", "--examples", "1"]) == 0
    page = (folder / "report.html").read_text()
    assert "Does it know?" in page and "name the right option" in page
    assert "held_out" in (tmp_path / "results" / "index.html").read_text()


def test_the_prompt_is_that_of_training(checkpoint, videos):
    from distime.processing.processor import DisTimeProcessor
    from distime.processing.prompt import encode_conversation

    root, specs = videos
    processor = DisTimeProcessor.from_pretrained(checkpoint)
    sample = processor.load_video(root / specs[0].file_name, 4)
    media = processor.video_media(sample)
    for question in (GROUND, "Look here: <video> When?", "No tag at all?"):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "At <TIME_STAMP>."}]
        trained = encode_conversation(processor.tokenizer, processor.template, turns, media)
        asked = processor.prompt_ids(sample, question, join="\n")
        assert trained.input_ids[: len(asked)] == asked
        assert all(label == -100 for label in trained.labels[: len(asked)])


def test_a_file_that_is_not_there_and_one_named_twice(checkpoint, tmp_path, capsys):
    command = ["evaluate", str(tmp_path / "x.jsonl"), "--checkpoint", str(checkpoint)]
    assert main(command) == 1 and "no such file" in capsys.readouterr().err
    assert main([*command, "--annotation", "y.jsonl"]) == 1
    assert "leave it out" in capsys.readouterr().err
    assert main(["evaluate", "x.txt", "--checkpoint", str(checkpoint)]) == 1
    assert "a file of your own" in capsys.readouterr().err


def test_empty_sets():
    assert matched_f1([], [], 0.5) == 1 and matched_f1([(0, 1)], [], 0.5) == 0
    assert not math.isnan(matched_f1([(2, 1)], [(1, 2)], 0.5))
