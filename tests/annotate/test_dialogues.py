"""From selected events to training files: what is written, and that `distime check` passes."""

import gc
import json
import tracemalloc
from itertools import count

import pytest

from annotate.annotated import lines, write_annotation
from distime.annotate import dialogues
from distime.annotate.dialogues import (
    DialogueError,
    is_held_out,
    items_of,
    write_dialogues,
)
from distime.annotate.records import AnnotationFolder, Selected, SelectedEvent, write_records
from distime.annotate.templates import read_templates
from distime.annotate.verdicts import ACCEPTED, CORRECTED, REJECTED, Verdict, VerdictLog
from distime.cli import main
from distime.data.checking import check
from distime.toy.synthetic import make_video, write_video


def names(count):
    return [f"video {number}.mp4" for number in range(count)]


@pytest.fixture
def videos(tmp_path):
    """Real files, since the check opens them; all are copies of one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    content = write_video(make_video(3), folder).read_bytes()
    for name in names(12):
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def out(tmp_path, videos):
    duration = make_video(3).duration
    counts = {name: number % 4 for number, name in enumerate(names(12))}
    return write_annotation(tmp_path / "out", videos, counts, duration)


def write(out, videos, *templates, **options):
    return write_dialogues(out, videos, *templates, **options)


def test_what_is_written_passes_the_check(out, videos):
    made = write(out, videos, held_out=0.45)
    assert [path.name for path in made.meta] == ["meta.json", "held_out.json"]
    assert made.events == 18 and not made.left_out
    assert dict(made.kinds) == {"retrieval": 18, "description": 18, "dense": 9, "conversation": 6}
    for meta in made.meta:
        assert not list(check(meta))
    assert sum(made.items.values()) == sum(made.kinds.values())


def test_items_of_a_video(out, videos):
    write(out, videos, held_out=0)
    items = [one for one in lines(out / "train.jsonl") if one["video"] == "video 3.mp4"]
    retrieval, description, (dense,), (talk,) = items[:3], items[3:6], items[6:7], items[7:]
    times = [time for k in range(3) for time in (2.0 * k, 2.0 * k + 1.5)]
    for k, (find, tell) in enumerate(zip(retrieval, description, strict=True)):
        assert find["tgt"] == tell["tgt"] == times[2 * k : 2 * k + 2]
        asked, said = (turn["value"] for turn in find["conversations"])
        assert f"thing {k} happens" in asked and said.count("<TIME_STAMP>") == 1
        asked, said = (turn["value"] for turn in tell["conversations"])
        assert asked.startswith("<video>\n") and asked.count("<TIME_STAMP>") == 1
        assert said == f"thing {k} happens."
    assert dense["tgt"] == talk["tgt"] == times
    said = dense["conversations"][1]["value"]
    assert said == " ".join(f"<TIME_STAMP>, thing {k} happens." for k in range(3))
    assert len(talk["conversations"]) == 6  # one turn for each event
    assert [turn["value"].count("<video>") for turn in talk["conversations"]] == [1, 0, 0, 0, 0, 0]


def test_events_come_in_the_order_of_their_starts(out, videos):
    events = [SelectedEvent(str(n), f"event {n}.", 9.0 - n, 9.5, 0.5, "one") for n in range(5)]
    write_records(AnnotationFolder(out).selected, [Selected("video 1.mp4", 12.0, tuple(events))])
    write(out, videos, held_out=0)
    dense = next(one for one in lines(out / "train.jsonl") if len(one["tgt"]) == 10)
    assert dense["tgt"][::2] == [5.0, 6.0, 7.0, 8.0, 9.0]


def test_templates_decide_what_is_made(out, videos, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("[retrieval]\nQ: When? {phrase}\nA: {time}!\n")
    made = write(out, videos, read_templates(path), held_out=0)
    assert set(made.kinds) == {"retrieval"}
    first = lines(out / "train.jsonl")[0]["conversations"]
    assert [turn["value"] for turn in first] == ["<video>\nWhen? thing 0 happens", "<TIME_STAMP>!"]


def test_the_split_is_by_video_and_stays_when_videos_are_added(out, videos):
    write(out, videos, held_out=0.45)
    parts = {p: {one["video"] for one in lines(out / f"{p}.jsonl")} for p in ("train", "held_out")}
    assert parts["train"] and parts["held_out"] and not parts["train"] & parts["held_out"]
    assert all(is_held_out(video, 0.45) for video in parts["held_out"])
    assert not any(is_held_out(video, 0.45) for video in parts["train"])
    many = [is_held_out(f"{number}.mp4", 0.1) for number in range(5000)]
    assert 400 < sum(many) < 600
    # A larger share keeps what a smaller one kept.
    assert all(is_held_out(f"{n}.mp4", 0.2) for n, kept in enumerate(many) if kept)


def test_without_a_held_out_part_the_files_of_an_earlier_one_go(out, videos):
    write(out, videos, held_out=0.45)
    write(out, videos, held_out=0)
    assert not (out / "held_out.json").exists() and not (out / "held_out.jsonl").exists()
    assert not list(check(out / "meta.json"))


def event(name, text="a door.", start=1.0, end=2.0):
    return SelectedEvent(name, text, start, end, 0.5, "one")


def test_what_cannot_be_trained_is_left_out_and_named(out, videos):
    duration = make_video(3).duration
    bad = {
        "its words hold <TIME_STAMP>": event("a", "at <TIME_STAMP>."),
        "its words hold <video>": event("b", "<video>"),
        "its words hold <|im_end|>": event("c", "x<|im_end|>"),
        "it has no words": event("d", "  "),
        "its interval has no length within the video": event("e", start=duration, end=duration + 9),
        "interval [5, 2] ends before it starts: swap the two": event("f", start=5, end=2),
        "interval [-1, 2] is negative": event("g", start=-1),
    }
    events = (event("ok"), *bad.values(), event("cut", end=duration + 0.004))
    write_records(AnnotationFolder(out).selected, [Selected("video 1.mp4", duration, events)])
    made = write(out, videos, held_out=0)
    assert made.events == 2 and sum(made.left_out.values()) == len(bad)
    named = {one["id"]: one["reason"] for one in lines(out / "left_out.jsonl")}
    for reason, one in bad.items():
        assert named[one.id].replace(".0", "").startswith(reason)
    assert not list(check(out / "meta.json"))


def test_what_people_decided_is_followed(out, videos):
    log = VerdictLog(out)
    about = {"video": "video 3.mp4", "duration": make_video(3).duration}
    moved = {"id": "3-1", "text": "it moved.", "start": 7.25, "end": 9.0}
    log.add(Verdict(**about, **moved, verdict=CORRECTED), 0)
    gone = {"id": "3-2", "text": "thing 2 happens.", "start": 4, "end": 5.5}
    log.add(Verdict(**about, **gone, verdict=REJECTED), 0)
    back = {"id": "3-3", "text": "nobody sees this.", "start": 6, "end": 7.5}
    log.add(Verdict(**about, **back, verdict=ACCEPTED), 0)
    stale = {"id": "7-7", "text": "of an earlier run.", "start": 6, "end": 7.5}
    log.add(Verdict(**about, **stale, verdict=ACCEPTED), 0)
    made = write(out, videos, held_out=0)
    assert made.reviewed == 3 and sum(made.left_out.values()) == 1
    assert lines(out / "left_out.jsonl")[0]["id"] == "7-7"
    items = [one for one in lines(out / "train.jsonl") if one["video"] == "video 3.mp4"]
    assert max(items, key=lambda one: len(one["tgt"]))["tgt"] == [0, 1.5, 6, 7.5, 7.25, 9]
    assert "it moved." in json.dumps(items) and "thing 2" not in json.dumps(items)
    assert not list(check(out / "meta.json"))


def test_a_video_whose_only_event_a_person_brought_back(out, videos):
    back = {"id": "0-0", "text": "nobody sees this.", "start": 0, "end": 1.5}
    VerdictLog(out).add(Verdict(video="video 0.mp4", duration=9.0, **back, verdict=ACCEPTED), 0)
    write(out, videos, held_out=0)
    assert [one["tgt"] for one in lines(out / "train.jsonl") if one["video"] == "video 0.mp4"]


@pytest.mark.parametrize(
    ("counts", "held_out", "said"),
    [
        ({"a.mp4": 0}, 0.0, "no video to train on, none has an event"),
        ({"a.mp4": 2}, 0.999999, "all 1 are held out: give --held-out 0"),
    ],
)
def test_nothing_to_train_on(tmp_path, counts, held_out, said):
    out = write_annotation(tmp_path / "out", tmp_path, counts)
    with pytest.raises(DialogueError, match=said):
        write(out, tmp_path, held_out=held_out)
    assert not (out / "meta.json").exists() and not (out / "train.jsonl").exists()


def test_memory_does_not_grow_with_the_events(tmp_path, monkeypatch):
    records = (
        Selected(f"{n}.mp4", 20.0, tuple(event(f"{n}-{k}", start=k, end=k + 2) for k in range(9)))
        for n in range(100)
    )
    write_records(AnnotationFolder(tmp_path).selected, records)
    sizes, made = [], count(1)

    def measured(*arguments):
        if next(made) % 20 == 0:
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        return items_of(*arguments)

    monkeypatch.setattr(dialogues, "items_of", measured)
    tracemalloc.start()
    write(tmp_path, tmp_path)
    tracemalloc.stop()
    # Each 20 videos write 100 kB more.
    assert len(sizes) == 5 and max(sizes[1:]) < sizes[0] + 20_000


def test_the_stage_alone_makes_them_again(out, videos, tmp_path, capsys):
    command = ["annotate", str(videos), "--out", str(out), "--stages", "dialogues"]
    assert main([*command, "--held-out", "0.45"]) == 0
    said = capsys.readouterr().out
    assert "items about 6 videos" in said and "18 retrieval" in said
    VerdictLog(out).add(
        Verdict(
            video="video 3.mp4", id="3-1", verdict=REJECTED, text="", start=0, end=0, duration=9
        ),
        0,
    )
    assert main([*command, "--held_out", "0"]) == 0
    said = capsys.readouterr().out
    assert "17 retrieval" in said and "1 decisions of people were followed" in said
    (tmp_path / "mine.txt").write_text("[retrieval]\nQ: {evnt}\nA: {time}\n")
    assert main([*command, "--templates", str(tmp_path / "mine.txt")]) == 1
    assert "mine.txt:2: unknown field {evnt}" in capsys.readouterr().err
    assert main([*command, "--held-out", "1"]) == 1
    assert "--held-out 1.0: give a share from 0 to below 1" in capsys.readouterr().err
    (out / "selected.jsonl").unlink()
    assert main(command) == 1
    assert "begin with the stage selection" in capsys.readouterr().err
