"""What the page does with a request; no browser and no gradio."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from answering import QUERIES
from distime.cli import main
from distime.engine.batch import Batch
from distime.processing.answers import Answer, Event
from distime.processing.questions import EVENT_CAPTIONING, moment_retrieval_question
from distime.processing.video import open_video
from distime.serve.demo.preview import plays_in_browsers, write_preview
from distime.serve.demo.responder import (
    ASK,
    FIND,
    LIST,
    DemoError,
    DemoLimits,
    Responder,
    answer_html,
    chapters_html,
    details_html,
    timeline_html,
)

LIMITS = DemoLimits(megabytes=5, seconds=60, new_tokens=12)


@pytest.fixture
def folder(tmp_path, uploads):
    shutil.copytree(uploads[0].parent, tmp_path / "served")
    return tmp_path / "served"


@pytest.fixture
def respond(model, folder):
    return Responder(model, [folder], LIMITS)


@pytest.fixture
def video(folder):
    return str(min(folder.glob("*.mp4")))


@pytest.mark.smoke
def test_each_mode_asks_its_question(model, respond, video):
    for mode, words, asked in (
        (FIND, QUERIES[0], moment_retrieval_question(QUERIES[0])),
        (LIST, "", EVENT_CAPTIONING),
        (ASK, QUERIES[2], QUERIES[2]),
    ):
        reply = respond(video, mode, words)
        expected = model.chat(video, asked, max_new_tokens=12)
        assert reply.answer == answer_html(expected)
        assert reply.timeline.count("data-start") == len(expected.events) > 0
        assert reply.chapters.count("<li>") == (len(expected.events) if mode == LIST else 0)
        assert reply.prompt == model.prompt(video, asked) and asked in reply.prompt
        assert "4 frames of" in reply.details and "on cpu" in reply.details


def test_programs_and_files_get_the_same(respond, video):
    reply = respond(video, FIND, QUERIES[0])
    data = reply.data
    assert data["question"] == QUERIES[0] and data["events"][0]["text"] == QUERIES[0]
    root = ElementTree.fromstring(reply.downloads)
    files = {
        link.get("download"): unquote(link.get("href").split(",", 1)[1]) for link in root.iter("a")
    }
    stem = Path(video).stem
    assert list(files) == [f"{stem}.json", f"{stem}.srt"]
    assert json.loads(files[f"{stem}.json"]) == json.loads(json.dumps(data))
    assert files[f"{stem}.srt"].count(" --> ") == len(data["events"])
    assert QUERIES[0] in files[f"{stem}.srt"]


def test_a_request_can_be_stopped(respond, video):
    class AfterThreeTokens(threading.Event):
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > 3

    stop = AfterThreeTokens()
    with pytest.raises(DemoError, match=r"Stopped\."):
        respond(video, FIND, QUERIES[0], stop)
    assert 4 <= stop.asked <= 6
    assert respond(video, FIND, QUERIES[0], threading.Event()).answer


def test_people_who_ask_at_once_share_a_batch(model, respond, uploads, video, monkeypatch):
    asked = [(video, FIND, query) for query in QUERIES] + [(video, LIST, "")]
    expected = [respond(*one).data for one in asked]
    together, choose = [], Batch.choose
    monkeypatch.setattr(
        Batch, "choose", lambda batch: together.append(len(batch.rows)) or choose(batch)
    )
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda one: respond(*one).data, asked))
    for mine, alone in zip(found, expected, strict=True):
        assert mine["answer"] == alone["answer"]
    assert max(together) > 1


def encoded(path, codec, pixels="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for number in range(24):
            picture = np.full((48, 64, 3), 10 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.mp4", "mpeg4", "yuv420p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_previews_show_the_same_at_the_same_time(tmp_path, name, codec, pixels):
    path = encoded(tmp_path / name, codec, pixels)
    assert not plays_in_browsers(path)
    write_preview(path, tmp_path / "preview.mp4")
    assert plays_in_browsers(tmp_path / "preview.mp4")
    with open_video(path) as before, open_video(tmp_path / "preview.mp4") as after:
        assert after.duration == pytest.approx(before.start + before.duration, abs=0.2)
        shown = np.searchsorted(before.timestamps + before.start, after.timestamps + 1e-6, "right")
        old = before.frames((shown - 1).clip(0)).astype(int)
        new = after.frames(range(after.num_frames)).astype(int)
        assert np.abs(old.mean((1, 2, 3)) - new.mean((1, 2, 3))).max() < 4


def test_what_browsers_play_is_left_alone(tmp_path, uploads):
    assert plays_in_browsers(uploads[0])
    assert plays_in_browsers(encoded(tmp_path / "a.webm", "libvpx-vp9"))
    assert not plays_in_browsers(tmp_path / "absent.mp4")


@pytest.mark.parametrize(
    ("mode", "words", "message"),
    [
        (FIND, "  ", "Write what to look for"),
        (ASK, None, "Write a question"),
        ("dance", "x", "Choose what to ask for"),
        (ASK, "x" * 3000, "longer than 2000"),
        (ASK, "what is <IMG_CONTEXT>?", "must not contain <IMG_CONTEXT>"),
    ],
)
def test_bad_questions_are_explained(respond, video, mode, words, message):
    with pytest.raises(DemoError, match=message):
        respond(video, mode, words)


def test_only_videos_in_the_served_folders_are_read(respond, video, folder, uploads, tmp_path):
    outside = str(uploads[0])
    link = folder / "link.mp4"
    link.symlink_to(outside)
    beside = tmp_path / "served too.mp4"
    shutil.copy(outside, beside)
    for path in (outside, str(link), str(beside), f"{folder}/../../{outside}", str(folder)):
        with pytest.raises(DemoError, match="not here"):
            respond(path, FIND, QUERIES[0])
    for path in (None, ""):
        with pytest.raises(DemoError, match="Choose a video first"):
            respond(path, FIND, QUERIES[0])


def test_a_playlist_cannot_make_us_read_other_files(respond, folder, uploads):
    """FFmpeg would follow it: it goes by what a file says, not by its name."""
    playlists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:{uploads[0]}\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {uploads[0]}\n",
    }
    for name, text in playlists.items():
        (folder / name).write_text(text)
        with pytest.raises(DemoError, match="no video of a known type"):
            respond(str(folder / name), FIND, QUERIES[0])
    shutil.copy(uploads[0], folder / "video.m3u8")
    with pytest.raises(DemoError, match="no video of a known type"):
        respond(str(folder / "video.m3u8"), FIND, QUERIES[0])


def test_limits(model, folder, video):
    with pytest.raises(DemoError, match="lasts 32 s; at most 10 s"):
        Responder(model, [folder], DemoLimits(seconds=10))(video, LIST, "")
    with pytest.raises(DemoError, match="At most 0 MB"):
        Responder(model, [folder], DemoLimits(megabytes=0))(video, LIST, "")


def test_errors_tell_no_paths(respond, folder):
    broken = folder / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    with pytest.raises(DemoError, match=r"^broken\.mp4: ") as raised:
        respond(str(broken), FIND, QUERIES[0])
    assert str(folder) not in str(raised.value)


def test_defects_are_not_shown_as_mistakes_of_the_person(respond, video, monkeypatch):
    monkeypatch.setattr(respond.model, "job", lambda *_, **__: int("defect"))
    with pytest.raises(ValueError, match="invalid literal") as raised:
        respond(video, FIND, QUERIES[0])
    assert not isinstance(raised.value, DemoError)


def test_everything_is_escaped():
    nasty = '<img src=x onerror="alert(1)">'
    events = (Event(1, 2, 0.5, np.full((2, 5), 0.2), nasty), Event(0.5, 70.9, text=""))
    answer = Answer(f"{nasty} <TIME_STAMP> {nasty} <TIME_STAMP>", events, 80.0)
    pieces = [answer_html(answer), timeline_html(events, 80.0), chapters_html(events)]
    pieces.append(details_html({"answer": nasty}))
    for html in pieces:
        root = ElementTree.fromstring(f"<div>{html}</div>")
        assert not [e for e in root.iter() if e.tag == "img"]
        assert nasty in "".join(root.itertext())
    starts = [
        e.get("data-start") for e in ElementTree.fromstring(pieces[2]).iter() if e.tag == "button"
    ]
    assert starts == ["0.500", "1.000"]  # chapters are in the order of time


def test_an_answer_without_times():
    assert "names no time" in timeline_html([], 10.0)
    assert chapters_html([]) == ""
    assert answer_html(Answer("", (), 10.0)) == '<p class="distime-answer">(no words)</p>'


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["demo", "--checkpoint", "/gone"]) == 1
    assert "pip install -r requirements-demo.txt" in capsys.readouterr().err
