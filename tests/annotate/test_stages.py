"""The stages together: once, killed anywhere and resumed, changed, and wrong from the start."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from annotate.conftest import NAMES, lines
from annotate.tiny_encoders import write_captioner, write_qwen_captioner
from distime.annotate.annotation_settings import STAGES
from distime.annotate.locators.frame_similarity import FrameSimilarity
from distime.cli import main
from distime.data.checking import check
from distime.errors import DisTimeError
from distime.evaluate.line_journal import LineJournal
from distime.paths import scripts

RESULTS = ("events.jsonl", "similarity.jsonl", "selected.jsonl", "dropped.jsonl", "problems.jsonl")


@pytest.fixture
def predictions(videos, captions, tmp_path):
    """Of another model: the first event of each video in its first half."""
    path = tmp_path / "predictions.jsonl"
    rows = [
        {"video": n, "query": "The red square is visible.", "start": 0, "end": 3, "confidence": 0.9}
        for n in NAMES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def cheap(captions, encoder, predictions):
    """All stages with what computes little."""
    return {
        "captioner": [f"file:{captions}"],
        "locator": [f"clip:{encoder}", f"file:theirs={predictions}"],
        "similarity": encoder,
        "min_agreement": 0.01,
    }


def results(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_all_stages_with_models(annotate, captions, checkpoint, encoder, captioner, tmp_path):
    report = annotate(
        captioner=[f"file:{captions}", f"model:{captioner}", f"distime:{checkpoint}"],
        locator=[f"distime:{checkpoint}", f"clip:{encoder}"],
        similarity=encoder,
        max_new_tokens=20,
        max_frames=3,
        min_score=0.1,
        max_failures=len(NAMES),
    )
    out = tmp_path / "out"
    events = lines(out / "events.jsonl")
    assert [one["video"] for one in events] == sorted(NAMES)
    ids = [event["id"] for one in events for event in one["events"]]
    assert len(ids) == len(set(ids)) >= 3 * len(NAMES)
    for one in events:
        red = one["events"][0]
        assert red["text"] == "The red square is visible."
        assert red["merged"] == ["the red square is visible"]
    kept = [event["id"] for one in lines(out / "selected.jsonl") for event in one["events"]]
    dropped = [one["id"] for one in lines(out / "dropped.jsonl")]
    assert sorted(kept + dropped) == sorted(ids)
    for one in lines(out / "selected.jsonl"):
        for event in one["events"]:
            assert 0 <= event["start"] < event["end"] <= one["duration"] == 6.0
            assert 0.1 <= event["score"] <= 1
    for name in ("distime-tiny", "clip-clip"):
        assert any(one.get("locations") for one in lines(out / "locations" / f"{name}.jsonl"))
    said = "\n".join(report.lines)
    assert f"{len(kept)} of {len(ids)} events were kept" in said and "duplicates" in said
    settings = json.loads((out / "settings.json").read_text())
    assert set(settings["stages"]) == set(STAGES)
    assert not list(check(out / "meta.json"))  # whatever models said, it can be trained


def test_killed_anywhere_it_goes_on(annotate, cheap, tmp_path, killed_at):
    """Killed at every line that is written, and resumed."""
    whole = tmp_path / "whole"
    annotate(**cheap, out=whole)
    total = len(written_keys(whole))
    for count in range(1, total):  # each start writes one line that counts
        with killed_at(1):
            annotate(**cheap)
        assert len(written_keys(tmp_path / "out")) == count
        assert not (tmp_path / "out" / "selected.jsonl").exists()
    annotate(**cheap)
    assert results(tmp_path / "out") == results(whole)
    keys = written_keys(tmp_path / "out")
    assert len(keys) == len(set(keys)) == total


def test_a_finished_run_is_not_repeated(annotate, cheap, tmp_path, monkeypatch):
    annotate(**cheap)
    before = results(tmp_path / "out")
    monkeypatch.setattr(FrameSimilarity, "open", None)  # loading the model would fail
    annotate(**cheap)
    assert results(tmp_path / "out") == before


def test_thresholds_are_changed_without_looking_again(annotate, cheap, tmp_path):
    annotate(**cheap)
    kept = len((tmp_path / "out" / "selected.jsonl").read_text())
    annotate(stages=["selection"], min_score=1.0)
    assert (tmp_path / "out" / "selected.jsonl").read_text() == ""
    reasons = [one["reason"] for one in lines(tmp_path / "out" / "dropped.jsonl")]
    assert len(reasons) == 3 * len(NAMES) and all("below 1" in one for one in reasons)
    annotate(stages=["selection"], min_agreement=0.01)
    assert len((tmp_path / "out" / "selected.jsonl").read_text()) == kept


def test_other_settings_are_not_mixed(annotate, cheap):
    annotate(**cheap)
    with pytest.raises(DisTimeError, match=r"--out .*fps was 1.0, is 2.0.*--overwrite"):
        annotate(**cheap, fps=2.0)
    annotate(**cheap, fps=2.0, overwrite=True)


def test_locations_of_other_events_are_refused(annotate, cheap, captions, tmp_path):
    annotate(**cheap)
    fewer = tmp_path / "captions.jsonl"
    fewer.write_text("".join(json.dumps({"video": n, "text": "A dog runs."}) + "\n" for n in NAMES))
    annotate(stages=["events"], captioner=[f"file:{fewer}"], overwrite=True)
    with pytest.raises(DisTimeError, match="of 4 videos are of other events.*locations again"):
        annotate(stages=["selection"])


def test_similarities_of_other_locations_are_refused(annotate, cheap, checkpoint):
    annotate(**cheap)
    annotate(stages=["locations"], locator=[f"distime:{checkpoint}"])
    with pytest.raises(DisTimeError, match="older than the locations"):
        annotate(stages=["selection"])


def test_videos_come_and_go(annotate, cheap, videos, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(videos, root)
    (root / "c.mp4").rename(tmp_path / "c.mp4")
    (root / "d.mp4").write_bytes((root / "d.mp4").read_bytes()[:300])
    cheap |= {"min_agreement": None}
    report = annotate(**cheap, videos=root)
    out = tmp_path / "out"
    assert report.failed == 1
    assert [one["video"] for one in lines(out / "selected.jsonl")] == ["a.mp4", "deep er/b.mp4"]
    (broken,) = [one for one in lines(out / "problems.jsonl") if one["fatal"]]
    assert broken["video"] == "d.mp4" and broken["stage"] == "events" and "d.mp4" in broken["why"]

    shutil.copy(tmp_path / "c.mp4", root)
    shutil.copy(videos / "d.mp4", root)
    (root / "a.mp4").unlink()
    report = annotate(**cheap, videos=root)
    assert report.failed == 0
    assert [one["video"] for one in lines(out / "selected.jsonl")] == sorted(NAMES)[1:]
    assert not [one for one in lines(out / "problems.jsonl") if one["fatal"]]


def test_two_of_a_kind_need_names(annotate, captions, checkpoint):
    with pytest.raises(DisTimeError, match="another one is named distime-tiny.*distime:NAME="):
        annotate(captioner=[f"file:{captions}"], locator=[f"distime:{checkpoint}"] * 2)


def test_a_question_that_is_too_long_is_a_failure_of_its_video(annotate, tmp_path):
    write_captioner(tmp_path / "short", max_positions=128)
    with pytest.raises(DisTimeError, match="not one of 4 videos.*tokens.*fewer --max-frames"):
        annotate(stages=["events"], captioner=[f"model:{tmp_path / 'short'}"], max_new_tokens=9)


def test_a_model_whose_processor_wants_torchvision_for_videos(annotate, tmp_path):
    write_qwen_captioner(tmp_path / "qwen")
    answered = {"max_new_tokens": 16, "max_failures": 99, "max_frames": 3}
    try:
        report = annotate(stages=["events"], captioner=[f"model:{tmp_path / 'qwen'}"], **answered)
        assert "model-qwen: 4 videos" in report.lines[0]
    except DisTimeError as error:  # random words need not be captions
        assert "no caption in the answer" in str(error)


# ------------------------------------------------------------------ wrong from the start


@pytest.fixture
def command(videos, captions, checkpoint, tmp_path, capsys):
    """Run the command; return its exit code and what it says on stderr."""

    def command(*words, folder=videos):
        out = ["--out", str(tmp_path / "out")]
        code = main(["annotate", str(folder), *out, *map(str, words)])
        return code, capsys.readouterr().err

    return command


EVENTS = ("--stages", "events")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--captioner: give at least one"),
        (["--captioner", "file:CAPTIONS"], "--locator: give at least one"),
        (
            [*EVENTS, "--captioner", "CAPTIONS"],
            "give one of distime:FOLDER, file:CAPTIONS.jsonl, model:",
        ),
        ([*EVENTS, "--captioner", "gpt:x"], "--captioner gpt:x: give one of"),
        ([*EVENTS, "--captioner", "file:nowhere.jsonl"], "file:nowhere.jsonl: no such file"),
        ([*EVENTS, "--captioner", "model:nowhere"], "--captioner model:nowhere: it does not exist"),
        ([*EVENTS, "--captioner", "distime:TMP"], "it is an empty folder"),
        (["--captioner", "file:CAPTIONS", "--locator", "unimd:x"], "give one of clip:FOLDER"),
        (["--captioner", "file:CAPTIONS", "--locator", "clip:CHECKPOINT"], "text_config"),
        (["--captioner", "file:CAPTIONS", "--locator", "file:x=no.jsonl"], "no such file"),
        (["--stages", "event"], "--stages event: choose of events, locations"),
        (["--stages", "selection"], "begin with the stage events"),
        (["--min-score", "2", "--stages", "selection"], "--min-score 2.0: give a number from 0"),
        (["--fps", "0", "--stages", "selection"], "--fps 0.0: give more than 0"),
        (["--device", "gpu", "--stages", "selection"], "--device gpu"),
    ],
)
def test_mistakes_are_named_before_any_work(command, captions, checkpoint, tmp_path, words, named):
    empty = tmp_path / "an empty folder"
    empty.mkdir()
    known = {":CAPTIONS": captions, ":CHECKPOINT": checkpoint, ":TMP": empty}
    for name, path in known.items():
        words = [word.replace(name, f":{path}") for word in words]
    code, said = command(*words)
    assert code == 1 and named in said and said.startswith("error: ")
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_folders_without_videos_are_named(command, tmp_path, captions):
    flags = ["--captioner", f"file:{captions}", "--stages", "events"]
    assert "no such folder" in command(*flags, folder=tmp_path / "nowhere")[1]
    assert "there is no video below it" in command(*flags, folder=captions.parent)[1]
    assert "is a file" in command(*flags, folder=captions)[1]


# ------------------------------------------------------------------ on several processes


@pytest.mark.slow
def test_killed_alone_it_goes_on_with_two_processes(annotate, cheap, videos, tmp_path, killed_at):
    """They share what is left of the killed pass, and all passes behind it."""
    whole = tmp_path / "whole"
    annotate(**cheap, out=whole)
    with killed_at(6):  # in the second stage
        annotate(**cheap)
    out = tmp_path / "out"
    assert not (out / "selected.jsonl").exists()
    words = [
        f"--{name.replace('_', '-')}={one}"
        for name, value in cheap.items()
        for one in (value if isinstance(value, list) else [value])
    ]
    done = subprocess.run(
        ["sh", scripts() / "annotate.sh", videos, "--out", out, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "GPUS": "2"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("events were kept") == 1  # one process speaks
    assert "4 videos, 2 of them before" in done.stdout
    assert results(out) == results(whole)
    keys = written_keys(out)
    assert len(keys) == len(set(keys)) == 4 * len(NAMES)


@pytest.fixture
def killed_at(monkeypatch):
    """End what runs in the block at a line that is written, with half of that line on disk."""
    append = LineJournal.append

    @contextlib.contextmanager
    def killed_at(count):
        left = count

        def killed(self, line):
            nonlocal left
            append(self, line)
            if left == 0:
                self._stream.flush()
                os.truncate(self._stream.name, os.fstat(self._stream.fileno()).st_size - 20)
                raise KeyboardInterrupt
            left -= 1

        with monkeypatch.context() as patch:
            patch.setattr(LineJournal, "append", killed)
            with contextlib.suppress(KeyboardInterrupt):
                yield

    return killed_at


def written_keys(out):
    """What the journals of all passes hold, whole lines alone."""
    return [
        (path.parent, json.loads(line)["key"])
        for path in (out / "journal").rglob("*.jsonl")
        for line in path.read_text().split("\n")[1:-1]
    ]
