"""The parts of a run that whole runs do not show: failures, limits, mixed settings, pictures."""

import json
import shutil
from pathlib import Path

import av
import pytest

from distime.cli import main
from distime.data.video_finder import VideoFinder
from distime.evaluate import Settings, SettingsError, run
from distime.evaluate.answering import Answerer
from distime.processing.processor import DisTimeProcessor
from evaluate.tiny_benchmarks import RUNS, settings_of


@pytest.fixture
def charades(checkpoint, videos, tmp_path) -> dict:
    root = tmp_path / "videos"
    shutil.copytree(videos[0], root)
    settings = settings_of("charades", tmp_path / "annotations", root, videos[1])
    return {"checkpoint": checkpoint, "out_dir": tmp_path / "out"} | settings


def test_a_broken_video_is_recorded_and_tried_again(charades, videos, one_process):
    broken, missing = (charades["video_root"] / spec.file_name for spec in videos[1][:2])
    broken.write_bytes(broken.read_bytes()[:100])
    missing.unlink()
    result = run(Settings(**charades))
    assert "2 of 4 videos failed" in result.problem
    reasons = {failure["video"]: failure["reason"] for failure in result.run["failures"]}
    assert broken.name in reasons[broken.stem] and "no such video" in reasons[missing.stem]
    assert result.score.counts["missing"] == sum(len(spec.events) for spec in videos[1][:2])
    assert not run(Settings(**charades, max_failures=2)).problem

    for path in (broken, missing):
        shutil.copy(videos[0] / path.name, path)
    mended = run(Settings(**charades))
    assert not mended.problem and mended.run["timing"]["videos"] == 2
    assert mended.path.read_bytes() == one_process["charades"][1].path.read_bytes()


@pytest.mark.smoke
def test_a_finished_run_is_not_repeated(charades, monkeypatch):
    first = run(Settings(**charades))
    before = first.path.read_bytes()
    first.path.unlink()
    monkeypatch.setattr(Answerer, "__init__", None)  # loading the model would fail
    assert run(Settings(**charades)).path.read_bytes() == before


def test_frames_by_the_second(charades, monkeypatch):
    counted = []
    load = DisTimeProcessor.load_video

    def spy(self, *arguments, **options):
        sample = load(self, *arguments, **options)
        counted.append((len(sample.times), round(sample.duration)))
        return sample

    monkeypatch.setattr(DisTimeProcessor, "load_video", spy)
    asked = charades | {"num_segments": None}
    result = run(Settings(**asked, fps=0.5, max_frames=6, limit=2, plots=1))
    assert not result.problem and counted
    assert all(n == min(6, max(1, round(seconds * 0.5))) for n, seconds in counted)
    with pytest.raises(SettingsError, match="fps was 0.5, is 1.*--overwrite"):
        run(Settings(**asked, fps=1.0, max_frames=6, limit=2))


def test_answers_of_other_settings_are_not_mixed(charades, checkpoint, tmp_path):
    run(Settings(**charades, limit=1))
    with pytest.raises(SettingsError, match="num_segments was 4, is 5.*--overwrite"):
        run(Settings(**charades | {"num_segments": 5}))
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(SettingsError, match="checkpoint was"):
        run(Settings(**charades | {"checkpoint": other}))
    result = run(Settings(**charades | {"num_segments": 5, "limit": 1, "overwrite": True}))
    assert result.run["timing"]["queries"] == 1


def test_a_limit_can_be_raised(charades, videos):
    first = len(videos[1][0].events)
    assert run(Settings(**charades, limit=first)).run["timing"]["videos"] == 1
    result = run(Settings(**charades))
    assert result.run["timing"]["videos"] == 3
    assert result.run["counts"]["queries"] == sum(len(spec.events) for spec in videos[1])


@pytest.mark.parametrize("name", [name for name in RUNS if "dvc" not in name])
def test_a_limit_scores_what_was_asked(name, checkpoint, videos, tmp_path, one_process):
    """Perfect answers to the first queries are perfect, and the table says how many these were."""
    settings = settings_of(name, tmp_path, *videos)
    settings |= {"checkpoint": checkpoint, "out_dir": tmp_path / "out"}
    if name == "nextgqa 1":
        return  # an earlier stage is not scored
    if name == "nextgqa 2":
        settings["timestamps"] = one_process["nextgqa 1"][0]["out_dir"] / "result_timestamp.json"
    result = run(Settings(**settings, limit=1))
    counts = result.score.counts
    assert counts.get("queries", counts.get("questions")) == 1
    assert sum(n for key, n in counts.items() if key.startswith("missing")) == 0
    shown = result.score.table()
    assert "1 queries" in shown and "--limit" in shown


def test_changed_questions_are_asked_again(charades):
    run(Settings(**charades))
    path = Path(charades["annotation"])
    items = json.loads(path.read_text())
    items[0]["query"] = "something else happens."
    path.write_text(json.dumps(items))
    result = run(Settings(**charades))
    assert result.run["timing"]["videos"] == 1
    assert "something else happens." in json.loads(result.path.read_text())[items[0]["video"]]


def test_what_is_wrong_with_a_video_is_counted(charades, videos):
    """Cut files fail; what is used though something is wrong with it is named in run.json."""
    cut, shorter, damaged = (charades["video_root"] / spec.file_name for spec in videos[1][:3])
    remuxed = cut.with_suffix(".mkv")
    remux(cut, remuxed)
    cut.unlink()
    remuxed.write_bytes(remuxed.read_bytes()[: remuxed.stat().st_size // 2])
    remux(shorter, shorter.with_suffix(".ts"), seconds=videos[1][1].duration / 2)
    shorter.with_suffix(".ts").replace(shorter)  # a stream knows no length, whatever its name
    data = bytearray(damaged.read_bytes())
    start = data.index(b"mdat") + 4000
    data[start : start + 60] = b"\xff" * 60
    damaged.write_bytes(data)
    result = run(Settings(**charades))
    failures = {failure["video"]: failure["reason"] for failure in result.run["failures"]}
    assert "the file is cut short" in failures[cut.stem]
    warnings = {warning["video"]: warning["reason"] for warning in result.run["warnings"]}
    assert "by the annotation: it may be cut short" in warnings[shorter.stem]
    assert "frames used are broken" in warnings[damaged.stem]
    assert set(warnings) == {shorter.stem, damaged.stem}
    assert result.run["counts"]["videos_with_warnings"] == 2
    # The journal keeps them for a run that goes on.
    assert run(Settings(**charades)).run["warnings"] == result.run["warnings"]


def remux(source, target, seconds=float("inf")):
    """Copy the packets of a video into another container."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None and packet.pts * packet.time_base < seconds:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.smoke
def test_answers_that_were_ended_are_counted(charades, monkeypatch):
    monkeypatch.setattr("distime.engine.batch.says_again", lambda ids, times: len(ids) >= times)
    result = run(Settings(**charades, max_repeats=2))
    reasons = [warning["reason"] for warning in result.run["warnings"]]
    assert reasons and all("2 times running (--max-repeats)" in reason for reason in reasons)
    assert result.run["counts"]["videos_with_warnings"] == len(reasons)
    with pytest.raises(SettingsError, match="--max-repeats 1: give 0, or 2 or more"):
        Settings(**charades, max_repeats=1)


def test_few_tokens_at_once_change_no_answer(charades, one_process):
    result = run(Settings(**charades, max_batch_tokens=1))
    assert result.path.read_bytes() == one_process["charades"][1].path.read_bytes()


def test_distributions_and_pictures_after_the_run(charades, videos):
    run(Settings(**charades))
    result = run(Settings(**charades, dump_distributions=True, plots=2))
    assert result.run["timing"]["videos"] == 0
    lines = (charades["out_dir"] / "distributions.jsonl").read_text().splitlines()
    events = [event for line in map(json.loads, lines) for event in line["events"]]
    assert len(lines) == result.run["counts"]["queries"] and events
    for event in events:
        assert 0 <= event["confidence"] <= 1
        assert [sum(bins) for bins in event["distribution"]] == pytest.approx([1, 1], abs=1e-4)
    page = (charades["out_dir"] / "plots" / "index.html").read_text()
    # Two of the worst, and of the best those that fit better than these.
    assert 2 <= page.count("<figure") == page.count("data:image/png;base64,") <= 4
    assert "<TIME_STAMP>" not in page  # escaped


def test_dense_captions_have_pictures_too(checkpoint, videos, tmp_path):
    settings = settings_of("youcook2_dvc", tmp_path / "annotations", *videos)
    settings |= {"checkpoint": checkpoint, "out_dir": tmp_path / "out", "plots": 1}
    run(Settings(**settings))
    assert (tmp_path / "out" / "plots" / "best-1.png").stat().st_size > 1000


def test_subtitles_reach_the_model(checkpoint, videos, tmp_path):
    settings = settings_of("longvideobench", tmp_path, *videos)
    settings |= {"checkpoint": checkpoint, "subtitles": tmp_path / "subtitles"}
    with_them = run(Settings(**settings, out_dir=tmp_path / "a"))
    assert not with_them.problem
    anew = {"share_prefix": False, "batch_size": 2}
    again = run(Settings(**settings, **anew, out_dir=tmp_path / "b"))
    assert again.path.read_bytes() == with_them.path.read_bytes()
    del settings["subtitles"]
    without = run(Settings(**settings, out_dir=tmp_path / "c"))
    assert without.path.read_bytes() != with_them.path.read_bytes()


def test_stage_2_needs_stage_1(checkpoint, videos, tmp_path):
    settings = settings_of("nextgqa 2", tmp_path, *videos)
    with pytest.raises(SettingsError, match="run stage 1"):
        run(Settings(checkpoint=checkpoint, out_dir=tmp_path / "out", **settings))


def test_annotations_that_do_not_fit(charades, tmp_path):
    path = Path(charades["annotation"])
    for text, reason in (
        ("[]", "no query"),
        ('[{"video": "a"}]', "'query'"),
        ("{", "not JSON"),
        ('[{"video": "a", "query": "b"}]', "--video-root.*none of the 1 videos"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=reason):
            run(Settings(**charades))


def test_the_command_says_what_is_wrong(charades, capsys):
    command = ["evaluate", "charades", "--checkpoint", str(charades["checkpoint"])]
    assert main([*command, "--annotation", "nowhere.json"]) == 1
    assert "--annotation nowhere.json" in capsys.readouterr().err


def test_videos_are_found_in_folders_below_the_named_ones(tmp_path):
    for name in ("a/x.mp4", "b/deep/er/x.webm", "b/y_1.0_2.0.mkv", "c/z.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    find = VideoFinder(tmp_path).find
    assert find("a/x") == find("a/x.mp4") == tmp_path / "a/x.mp4"
    assert find("b/x.mp4") == tmp_path / "b/deep/er/x.webm"
    assert find("y_1.0_2.0") == tmp_path / "b/y_1.0_2.0.mkv"
    assert find("c/y_1.0_2.0.mp4") == tmp_path / "c/y_1.0_2.0.mp4"  # not the one in b
    assert not find("c/x").exists()
