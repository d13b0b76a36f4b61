"""The review server by plain requests: lists, videos in pieces, decisions, and what it refuses."""

import json
import urllib.error
import urllib.request

import av
import pytest

from annotate.annotated import lines, write_annotation
from distime.annotate.verdicts import VerdictLog
from distime.serve.review.review_server import reviewing
from distime.serve.review.worklist import ReviewError, Worklist
from distime.toy.synthetic import make_video, write_video

DURATION = make_video(3).duration
NAMES = ["a.mp4", "b & <i>.mp4", "c.avi", "gone.mp4"]


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    content = write_video(make_video(3), folder).read_bytes()
    for name in NAMES[:2]:
        (folder / name).write_bytes(content)
    with av.open(str(folder / "c.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 64
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    return folder


@pytest.fixture
def out(tmp_path, videos):
    counts = dict(zip(NAMES, (2, 3, 1, 0), strict=True))
    return write_annotation(tmp_path / "out", videos, counts, DURATION)


@pytest.fixture
def address(out):
    with reviewing(out) as url:
        yield url


def get(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response, response.read()


def get_json(url):
    return json.loads(get(url)[1])


def post(url, value, **headers):
    headers = {"Content-Type": "application/json"} | headers
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def decision(event, **changes):
    base = {name: event[name] for name in ("id", "text", "start", "end")}
    return base | {"number": 0, "verdict": "accepted", "reviewer": "", "seen": 0} | changes


def test_the_list_begins_with_the_worst_agreement(address):
    found = get_json(f"{address}/list")
    assert [one["video"] for one in found["videos"]] == [
        "c.avi",
        "b & <i>.mp4",
        "a.mp4",
        "gone.mp4",
    ]
    assert (found["events"], found["decided"], found["total"]) == (10, 0, 4)
    folder = get_json(f"{address}/list?order=folder&offset=1&count=2")
    assert [one["number"] for one in folder["videos"]] == [1, 2]


def test_a_video_has_kept_and_dropped_events_with_their_candidates(address):
    found = get_json(f"{address}/video/1")
    assert [one["reason"] for one in found["events"]] == ["", "", "", "agreement 0.10 is below 0.3"]
    event = found["events"][1]
    assert event["candidates"] == {"one": [2.0, 3.5], "two": [2.1, 3.6]}
    assert (event["start"], event["end"], event["verdict"]) == (2.0, 3.5, None)
    assert found["events"][3]["start"] == 6.0 and found["trouble"] == "" and found["origin"] == 0
    gone = get_json(f"{address}/video/3")
    assert "gone.mp4: no such video" in gone["trouble"] and len(gone["events"]) == 1


def test_decisions_are_kept_and_counted(address, out):
    event = get_json(f"{address}/video/0")["events"][0]
    assert post(f"{address}/decide", decision(event))[0] == 200
    moved = decision(event, verdict="corrected", end=1.2345, text=" two\n words ", seen=1)
    status, kept = post(f"{address}/decide", moved | {"reviewer": "ada"})
    assert status == 200 and (kept["end"], kept["text"], kept["number"]) == (1.234, "two words", 2)
    assert len(lines(out / "reviewed.jsonl")) == 2
    assert get_json(f"{address}/list")["decided"] == 1
    assert get_json(f"{address}/video/0")["events"][0]["verdict"]["reviewer"] == "ada"
    for one in get_json(f"{address}/video/0")["events"][1:]:
        assert post(f"{address}/decide", decision(one, verdict="rejected"))[0] == 200
    assert 0 not in [one["number"] for one in get_json(f"{address}/list?open=1")["videos"]]


def test_two_people_at_once(address):
    event = get_json(f"{address}/video/0")["events"][0]
    assert post(f"{address}/decide", decision(event, reviewer="ada"))[0] == 200
    status, said = post(f"{address}/decide", decision(event, verdict="rejected"))
    assert status == 409 and "ada has accepted this event meanwhile" in said["error"]
    assert said["verdict"]["verdict"] == "accepted"
    assert post(f"{address}/decide", decision(event, verdict="rejected", seen=1))[0] == 200


def test_a_server_sees_what_another_one_wrote(out, address):
    with reviewing(out) as other:
        event = get_json(f"{other}/video/0")["events"][0]
        assert post(f"{other}/decide", decision(event))[0] == 200
    assert get_json(f"{address}/video/0")["events"][0]["verdict"]["verdict"] == "accepted"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"number": 99}, "there is no video 99"),
        ({"number": "0"}, "there is no video 0"),
        ({"id": "x"}, "a.mp4 has no event x"),
        ({"verdict": "liked"}, "an event is accepted, corrected or rejected"),
        ({"start": 3.0, "end": 2.0}, "begins before it ends"),
        ({"start": None}, "seen, start and end are numbers"),
        ({"text": ["x"]}, "are texts"),
        ({"text": "x" * 30_000}, "too long"),
    ],
)
def test_wrong_decisions_are_refused(address, out, changes, said):
    event = get_json(f"{address}/video/0")["events"][0]
    status, answer = post(f"{address}/decide", decision(event, **changes))
    assert status == 400 and said in answer["error"]
    assert not VerdictLog(out).verdicts()


def test_requests_of_other_pages_are_refused(address, out):
    event = decision(get_json(f"{address}/video/0")["events"][0])
    assert post(f"{address}/decide", event, **{"Content-Type": "text/plain"})[0] == 403
    assert post(f"{address}/decide", event, Origin="http://elsewhere.example")[0] == 403
    assert post(f"{address}/decide", event, Host="elsewhere.example")[0] == 403
    assert post(f"{address}/decide", b"[" * 5000)[0] == 400
    assert post(f"{address}/decide", b" " * 70_000)[0] == 413
    assert post(f"{address}/other", event)[0] == 404
    assert not VerdictLog(out).verdicts()


def test_videos_come_in_the_pieces_that_players_ask_for(address, videos):
    whole = (videos / "a.mp4").read_bytes()
    response, content = get(f"{address}/media/0")
    assert content == whole and response.headers["Accept-Ranges"] == "bytes"
    for asked, expected in (
        ("bytes=0-9", whole[:10]),
        ("bytes=100-", whole[100:]),
        ("bytes=-50", whole[-50:]),
        (f"bytes=5-{len(whole) + 9}", whole[5:]),
    ):
        response, content = get(f"{address}/media/0", Range=asked)
        assert response.status == 206 and content == expected
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(f"{address}/media/0", Range=f"bytes={len(whole)}-")
    assert raised.value.code == 416


def test_what_browsers_do_not_play_is_shown_as_a_copy(address, videos):
    before = sorted(videos.iterdir())
    response, content = get(f"{address}/media/2")
    assert response.headers["Content-Type"] == "video/mp4" and content[4:8] == b"ftyp"
    assert sorted(videos.iterdir()) == before


def test_no_other_file_is_read(tmp_path, videos, address):
    (videos.parent / "secret.mp4").write_bytes((videos / "a.mp4").read_bytes())
    for path in (
        "media/..%2f..%2fsecret.mp4",
        "media/9",
        "../etc/passwd",
        "review.html",
        "media/3",
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(f"{address}/{path}")
        assert raised.value.code in (400, 404) and str(videos) not in raised.value.read().decode()
    (videos / "list.mp4").write_text("#EXTM3U\n")
    names = {"../secret.mp4": 1, str(videos.parent / "secret.mp4"): 1, "list.mp4": 1}
    worklist = Worklist(write_annotation(tmp_path / "bad", videos, names))
    for number in range(3):
        with pytest.raises(ReviewError, match=r"does not lie below|this is no video"):
            worklist.path(number)


def test_nothing_to_review(tmp_path, videos, out):
    with pytest.raises(ReviewError, match="no such folder of videos; name it with --videos"):
        Worklist(write_annotation(tmp_path / "moved", tmp_path / "none", {"a.mp4": 1}))
    assert Worklist(tmp_path / "moved", videos).page("worst", False, 0, 5)["events"] == 2
    for name in ("events", "selected", "dropped"):
        (out / f"{name}.jsonl").write_text("")
    with pytest.raises(ReviewError, match="no event to review"):
        Worklist(out)


def test_a_taken_port_is_reported(out, address):
    port = int(address.rsplit(":", 1)[1])
    with pytest.raises(ReviewError, match="cannot listen on 127.0.0.1"), reviewing(out, port=port):
        pass
