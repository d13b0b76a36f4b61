"""An endpoint that misbehaves: what is asked again, what is given up, what is never paid twice."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from annotate.conftest import NAMES, lines
from distime.annotate.captioners import endpoint
from distime.errors import DisTimeError

GOOD = "A man opens the door.\nHe walks away.\n"


def completion(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


class Server(ThreadingHTTPServer):
    """Answers what `replies` say, one after the other, then `then` for ever.

    A reply is (status, JSON or bytes), with headers as a third; a number is seconds of silence.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.then = [], completion(GOOD)
        self.requests, self.running, self.most = [], 0, 0
        self.lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        with server.lock:
            server.requests.append((self.path, dict(self.headers), json.loads(body)))
            server.running += 1
            server.most = max(server.most, server.running)
            reply = server.replies.pop(0) if server.replies else server.then
        time.sleep(reply if isinstance(reply, int | float) else 0.02)
        with server.lock:
            server.running -= 1
        if not isinstance(reply, tuple):
            return
        status, content, *headers = reply
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers[0].items() if headers else ():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def describe(annotate, tmp_path):
    def describe(**options):
        report = annotate(stages=["events"], captioner=["openai:small"], **options)
        return report, lines(tmp_path / "out" / "events.jsonl")

    return describe


def problems(tmp_path):
    return {one["video"]: one for one in lines(tmp_path / "out" / "problems.jsonl")}


def test_a_request_is_what_such_endpoints_take(server, describe):
    report, events = describe(picture_side=16, max_frames=5, events_per_video=3)
    assert report.failed == 0 and len(events) == len(NAMES)
    assert [one["text"] for one in events[0]["events"]] == GOOD.splitlines()
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer a secret"
    assert body["model"] == "small" and body["max_tokens"] == 512
    *pictures, words = body["messages"][0]["content"]
    assert len(pictures) == 5 and "about 3 events" in words["text"]
    start, data = pictures[0]["image_url"]["url"].split(",")
    assert start == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (16, 16)


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ((429, {"error": "slow down"}), "status 429"),
        ((429, {}, {"Retry-After": "0.05"}), "status 429"),
        ((500, b"oops"), "status 500: oops"),
        ((503, b""), "status 503"),
        (completion("!!!"), "no caption in the answer"),
        (completion(""), "empty"),
        (completion(None), "empty"),
        ((200, b"<html>"), "no chat completion: <html>"),
        ((200, {"choices": []}), "no chat completion"),
        (0.0, "no connection"),
    ],
)
def test_what_fails_once_is_asked_again_and_said(server, describe, tmp_path, reply, named):
    server.replies = [reply]
    report, events = describe(limit=1)
    assert report.failed == 0 and len(events[0]["events"]) == 2
    assert len(server.requests) == 2
    problem = problems(tmp_path)["a.mp4"]
    assert not problem["fatal"] and "1 request to the endpoint failed" in problem["why"]
    assert named in problem["why"]


def test_silence_is_given_up_after_the_timeout(server, describe, tmp_path):
    server.replies = [0.6]
    started = time.monotonic()
    describe(limit=1, timeout=0.2)
    assert time.monotonic() - started < 5
    assert "no answer in 0.2 s" in problems(tmp_path)["a.mp4"]["why"]


def test_a_drip_is_given_up_after_the_timeout(server, describe, monkeypatch, tmp_path):
    def drip(handler):
        handler.rfile.read(int(handler.headers["content-length"]))
        handler.send_response(200)
        handler.send_header("content-length", "100")
        handler.end_headers()
        for _ in range(12):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    monkeypatch.setattr(Handler, "do_POST", drip)
    with pytest.raises(DisTimeError, match="no whole answer in 0.2 s"):
        describe(limit=1, timeout=0.2, retries=0)


def test_the_run_goes_on_past_a_video_that_fails(server, describe, tmp_path):
    server.replies = [(500, b"")] * 3
    report, events = describe(concurrency=1, retries=2)
    assert report.failed == 1
    assert [one["video"] for one in events] == sorted(NAMES)[1:]
    assert (
        "3 requests to the endpoint failed, last: status 500" in problems(tmp_path)["a.mp4"]["why"]
    )

    report, events = describe(concurrency=1)  # what failed is tried again, and that alone
    assert report.failed == 0 and len(events) == len(NAMES) and problems(tmp_path) == {}
    assert len(server.requests) == 3 + len(NAMES)


def test_a_request_that_is_refused_is_not_asked_again(server, describe, tmp_path):
    server.replies = [(400, {"error": "too many images"})]
    report, _ = describe(concurrency=1)
    assert report.failed == 1 and len(server.requests) == len(NAMES)
    assert "status 400" in problems(tmp_path)["a.mp4"]["why"]


@pytest.mark.parametrize(
    ("status", "mend"), [(401, "check OPENAI_API_KEY"), (404, "check OPENAI_BASE_URL and the name")]
)
def test_wrong_settings_end_the_run(server, describe, status, mend):
    server.then = (status, {"error": "no"})
    with pytest.raises(DisTimeError, match=f"answers {status}.*{mend}"):
        describe(concurrency=1)
    assert len(server.requests) <= 2


def test_an_endpoint_that_is_gone_ends_the_run(server, describe):
    server.then = (500, b"")
    with pytest.raises(DisTimeError, match="4 videos in a row failed.*goes on where it stopped"):
        describe(concurrency=1, retries=0)


def test_answers_are_kept_by_what_was_asked(server, describe, tmp_path):
    server.replies = [completion("!!!")]
    describe()
    asked = len(server.requests)
    assert asked == len(NAMES) + 1
    kept = list((tmp_path / "out" / "cache").rglob("*.json"))
    assert len(kept) == len(NAMES)
    assert all(json.loads(path.read_text())["answer"] == GOOD for path in kept)
    describe(overwrite=True)
    assert len(server.requests) == asked  # garbage was not kept, what was paid for is
    describe(overwrite=True, events_per_video=2)
    assert len(server.requests) == asked + len(NAMES)


def test_no_more_requests_at_once_than_asked_for(server, describe):
    describe(concurrency=2)
    assert server.most <= 2


def test_the_key_is_written_nowhere(server, describe, tmp_path):
    server.replies = [(429, b"")]
    describe()
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"a secret" in p.read_bytes()]


def test_an_endpoint_needs_a_key_and_an_address(server, describe, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    with pytest.raises(DisTimeError, match="OPENAI_BASE_URL localhost:8000: give an address"):
        describe()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DisTimeError, match="--captioner openai:small: set .* OPENAI_API_KEY"):
        describe()
