import json

import pytest
from PIL import Image

from distime import DisTime
from distime.cli import main
from distime.processing.questions import STEP_CAPTIONING

SHORT = ["--max-new-tokens", "12"]


def caption(checkpoint, *arguments):
    return main(["caption", *map(str, arguments), "--checkpoint", checkpoint, *SHORT])


def test_events_have_times_and_words(checkpoint, videos, capsys):
    model = DisTime.from_pretrained(checkpoint, device="cpu")
    assert caption(checkpoint, *videos, "--json") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["video"] for a in answers] == videos
    for answer, expected in zip(answers, model.caption(videos, max_new_tokens=12), strict=True):
        assert [e.get("text", "") for e in answer["events"]] == [e.text for e in expected]
        assert [e["start"] for e in answer["events"]] == pytest.approx(
            [e.start for e in expected], abs=1e-3
        )
    assert sum(len(a["events"]) for a in answers) > 0


def test_steps_are_asked_for_differently(checkpoint, videos, capsys):
    assert caption(checkpoint, videos[0], "--json") == 0
    assert caption(checkpoint, videos[0], "--json", "--steps") == 0
    events, steps = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert events != steps
    model = DisTime.from_pretrained(checkpoint, device="cpu")
    expected = model.caption(videos[0], question=STEP_CAPTIONING, max_new_tokens=12)
    assert len(steps["events"]) == len(expected)


def test_files_and_text(checkpoint, videos, tmp_path, capsys):
    files = ["--plot", tmp_path / "p.png", "--srt", tmp_path / "s.srt"]
    assert caption(checkpoint, *videos, *files) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if not line.startswith(" ")] == videos
    names = ["p-1.png", "p-2.png", "s-1.srt", "s-2.srt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert Image.open(tmp_path / "p-2.png").format == "PNG"


def test_an_unreadable_video_does_not_stop_the_others(checkpoint, videos, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert caption(checkpoint, broken, videos[0]) == 1
    captured = capsys.readouterr()
    assert "error: " in captured.err and "broken.mp4" in captured.err
    assert videos[0] in captured.out
