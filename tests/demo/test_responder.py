"""What the page does with a request; no browser and no gradio."""

import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from answering import QUERIES
from distime.cli import main
from distime.demo.responder import (
    ASK,
    FIND,
    LIST,
    DemoError,
    Limits,
    Responder,
    answer_html,
    chapters_html,
    details_html,
    timeline_html,
)
from distime.processing.answers import Answer, Event
from distime.processing.questions import ANET_CAPTIONING, moment_retrieval_question

LIMITS = Limits(megabytes=5, seconds=60, new_tokens=12)


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
        (LIST, "", ANET_CAPTIONING),
        (ASK, QUERIES[2], QUERIES[2]),
    ):
        reply = respond(video, mode, words)
        expected = model.chat(video, asked, max_new_tokens=12)
        assert reply.answer == answer_html(expected)
        assert reply.timeline.count("data-start") == len(expected.events) > 0
        assert reply.chapters.count("<li>") == (len(expected.events) if mode == LIST else 0)
        assert reply.prompt == model.prompt(video, asked) and asked in reply.prompt
        assert "4 frames of" in reply.details and "on cpu" in reply.details


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
        Responder(model, [folder], Limits(seconds=10))(video, LIST, "")
    with pytest.raises(DemoError, match="At most 0 MB"):
        Responder(model, [folder], Limits(megabytes=0))(video, LIST, "")


def test_errors_tell_no_paths(respond, folder):
    broken = folder / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    with pytest.raises(DemoError, match=r"^broken\.mp4: ") as raised:
        respond(str(broken), FIND, QUERIES[0])
    assert str(folder) not in str(raised.value)


def test_defects_are_not_shown_as_mistakes_of_the_person(respond, video, monkeypatch):
    monkeypatch.setattr(respond.model, "ask", lambda *_, **__: int("defect"))
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
