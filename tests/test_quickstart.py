"""The quickstart with next to nothing in it: every part must run and fit the next."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distime import DisTime
from distime.benchmarks.charades import synthetic_queries
from distime.cli import main
from distime.data.checking import check
from distime.serve.demo.responder import FIND, DemoLimits, Responder
from distime.toy.curriculum import STAGES, write_curriculum
from distime.toy.quickstart import (
    EXPECTED_MIOU,
    QuickstartResult,
    QuickstartSettings,
    Stage,
    best_constant,
    run,
    wrong_question_miou,
)
from distime.toy.synthetic import ShapeEvent, SyntheticVideo, write_videos

SHORT = Stage(2, 2)


@pytest.mark.slow
def test_every_part_runs(tmp_path):
    out = tmp_path / "quick start"
    settings = QuickstartSettings(train_videos=4, held_out_videos=2, **dict.fromkeys(STAGES, SHORT))
    result = run(out, settings)
    for metrics in (result.trained, result.untrained, result.constant):
        assert all(0 <= metrics[name] <= 100 for name in ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7"))
    assert result.picture.stat().st_size > 10_000
    assert set(result.seconds) == {"videos", "training", "evaluation", "picture"}
    # What was trained can be served; tests/demo looks at the page itself.
    model = DisTime.from_pretrained(out / "checkpoints" / "ground", device="cpu")
    videos = out / "videos" / "held_out"
    respond = Responder(model, [videos], DemoLimits(new_tokens=8))
    reply = respond(str(next(videos.glob("*.mp4"))), FIND, "the red circle is visible.")
    assert "distime-answer" in reply.answer and "the red circle is visible." in reply.prompt
    weights = out / "checkpoints" / "ground" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    again = run(out, settings)  # what is finished is kept
    assert weights.stat().st_mtime_ns == written and again.trained == result.trained


def test_the_command_says_what_to_expect(tmp_path, monkeypatch, capsys):
    scores = dict.fromkeys(("mIoU", "R1@0.3", "R1@0.5", "R1@0.7"), 50.0)
    result = QuickstartResult(scores, scores, scores, 1.0, {"training": 9.0}, tmp_path / "a.png")
    monkeypatch.setattr("distime.toy.quickstart.run", lambda *_: result)
    assert main(["quickstart", "--output", str(tmp_path)]) == 0
    low, high = EXPECTED_MIOU["internvl"]
    assert f"to be expected: trained mIoU from {low} to {high}" in capsys.readouterr().out
    readme = Path(__file__).parents[1] / "README.md"
    assert f"Expect a trained mIoU from {low} to {high}" in readme.read_text()


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lessons")
    specs = write_videos(folder / "videos", 3, seed=7, workers=1)
    return specs, write_curriculum(specs, folder / "videos", folder / "out", seed=0), folder


def test_lessons_are_valid_training_data(lessons):
    _, metas, _ = lessons
    assert list(metas) == list(STAGES)
    for meta in metas.values():
        problems = [str(p) for p in check(meta) if p.severity == "error"]
        assert not problems


def test_lessons_say_what_the_videos_show(lessons):
    specs, _, folder = lessons
    by_file = {spec.file_name: spec for spec in specs}
    seen = set()
    for line in (folder / "out" / "relate.jsonl").read_text().splitlines():
        item = json.loads(line)
        spec = by_file[item["video"]]
        question, answer = (turn["value"] for turn in item["conversations"])
        names = {f"{event.color} {event.shape}" for event in spec.events}
        if "visible at <TIME_STAMP>" in question:
            time = item["tgt"][0]
            shown = [e for e in spec.events if e.start <= time + 0.005 and time < e.end]
            expected = f"{shown[0].color} {shown[0].shape}." if shown else "nothing."
            seen.add(answer == "nothing.")
        elif "appear" in question:
            asked = question.split("Does the ")[1].removesuffix(" appear?")
            expected = "yes." if asked in names else "no."
            # No shade of doubt: what is absent has a colour that is absent.
            colors = {event.color for event in spec.events}
            assert asked in names or asked.split()[0] not in colors
        else:
            expected = "The event is depicted at <TIME_STAMP>."
            assert tuple(item["tgt"]) in {(e.start, e.end) for e in spec.events}
        assert answer == expected
    assert seen == {True, False}


def video(*spans):
    events = tuple(
        ShapeEvent(color, "square", *span)
        for color, span in zip(("red", "blue", "green"), spans, strict=False)
    )
    return SyntheticVideo("v", 0, 20.0, 8, 96, events)


def test_best_constant_is_the_common_interval():
    start, end = best_constant([video((5, 15)), video((5, 15)), video((0, 1))])
    assert (start, end) == (0.25, 0.75)


def test_answers_that_ignore_the_question_hit_the_other_events():
    spec = video((0, 5), (10, 15))
    queries = [row["query"] for row in synthetic_queries([spec])]
    right = {queries[0]: {"start": 0, "end": 5}, queries[1]: {"start": 10, "end": 15}}
    deaf = {query: {"start": 0, "end": 15} for query in queries}
    assert wrong_question_miou({"v": right}, [spec]) == 0
    assert np.isclose(wrong_question_miou({"v": deaf}, [spec]), 100 / 3)
