"""The page, served and used in a headless browser. Skipped where gradio or a browser is missing.

Screenshots are kept in the folder that DISTIME_ARTEFACTS names, else in pytest's temporary one.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import unquote

import av
import pytest

from answering import QUERIES
from distime import DisTime
from distime.engine.batch import Batch
from distime.metrics.intervals import iou
from distime.processing.questions import EVENT_CAPTIONING, moment_retrieval_question
from distime.processing.video import open_video
from distime.serve.demo.responder import ASK, FIND, LIST, DemoError, DemoLimits
from distime.toy.synthetic import make_video, write_video

gradio = pytest.importorskip("gradio", reason="gradio is not installed (requirements-demo.txt)")
from demo.browser import Page, headless_browser  # noqa: E402
from distime.serve.demo.page import serving  # noqa: E402

pytestmark = pytest.mark.slow
HELD_OUT = 1_000_025  # a seed of the quickstart's evaluation
LIMITS = DemoLimits(megabytes=2, seconds=60, new_tokens=12)


@pytest.fixture(scope="module")
def address(model):
    with serving(model, limits=LIMITS, checkpoint="DisTime-tiny") as url:
        yield url.rstrip("/")


# --------------------------------------------------------------------------------- plain requests


def post(url, body, headers):
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def upload(address, name, content):
    """Upload as the page does; return the path that the server gives the file."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
    body = head.encode() + b"\r\n" + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return post(f"{address}/gradio_api/upload", body, headers)[0]


def ask(address, path, mode=FIND, question=QUERIES[0]):
    """Ask as a program would; return ("complete" or "error", data)."""
    video = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [video, mode, question]}).encode()
    headers = {"Content-Type": "application/json"}
    event = post(f"{address}/gradio_api/call/ask", body, headers)["event_id"]
    with urllib.request.urlopen(f"{address}/gradio_api/call/ask/{event}", timeout=60) as response:
        lines = [line for line in response.read().decode().splitlines() if ":" in line]
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


@pytest.mark.smoke
def test_a_program_gets_data(address, uploads, model):
    path = upload(address, "my video.mp4", uploads[0].read_bytes())
    state, (data,) = ask(address, path)
    assert state == "complete"
    expected = model.chat(uploads[0], moment_retrieval_question(QUERIES[0]), max_new_tokens=12)
    assert data["checkpoint"] == "DisTime-tiny" and data["video"] == "my video.mp4"
    assert len(data["events"]) == len(expected.events) > 0
    for found, event in zip(data["events"], expected.events, strict=True):
        numbers = (found["start"], found["end"], found["confidence"])
        assert numbers == pytest.approx((event.start, event.end, event.confidence), abs=1e-3)
        assert found["text"] == QUERIES[0]
    assert data["duration"] == pytest.approx(expected.duration, abs=1e-3)
    assert "distime-answer" not in json.dumps(data)  # no HTML


def test_a_request_cannot_read_other_files(address, uploads, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    for path in (secret, uploads[0], "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=60)
        assert raised.value.code in (403, 404)
        assert ask(address, str(path))[0] == "error"
    playlist = upload(address, "a.mp4", f"#EXTM3U\n#EXTINF:9,\nfile:{uploads[0]}\n".encode())
    assert ask(address, playlist)[0] == "error"
    # The other way to name a file: an address that the server would fetch for us.
    reached = threading.Event()
    with LocalServer(reached) as url:
        assert ask(address, f"{url}/a.mp4")[0] == "error"
    assert not reached.is_set()


class LocalServer:
    """An HTTP server of this machine that notices when it is asked for something."""

    def __init__(self, reached):
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                reached.set()
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_large_uploads_are_refused(address):
    with pytest.raises(urllib.error.HTTPError) as raised:
        upload(address, "large.mp4", bytes(3_000_000))
    assert raised.value.code == 413


def test_a_taken_port_is_reported_and_nothing_is_left(address, model):
    before = dict(os.environ)
    with (
        pytest.raises(DemoError, match="cannot listen on 127.0.0.1, port"),
        serving(model, port=int(address.rsplit(":", 1)[1]), num_examples=0),
    ):
        pass
    assert dict(os.environ) == before


# -------------------------------------------------------------------------------------- a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    named = os.environ.get("DISTIME_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_upload_ask_see_events_click_to_seek(browser, address, uploads, model, artefacts):
    page = Page(browser, address)
    page.upload(uploads[0])
    page.wait(lambda: page.video("readyState"))
    page.write(QUERIES[0])
    page.ask()
    answer = model.chat(uploads[0], moment_retrieval_question(QUERIES[0]), max_new_tokens=12)
    events = answer.events
    page.wait(lambda: len(page.all("#distime-timeline g.event")) == len(events))
    assert len(page.all("#distime-timeline polyline")) == 2 * len(events)

    rows = page.all("#distime-timeline g.event")
    for row, event in zip(rows, events, strict=True):
        row.click()
        page.is_at(event.start)
    playhead = page.one(".distime-playhead")
    expected = page.seconds() / answer.duration
    place = playhead.location["x"] - page.one(".distime-stage").location["x"]
    assert place / page.one(".distime-stage").size["width"] == pytest.approx(expected, abs=0.06)

    page.all("#distime-answer button")[0].click()
    page.is_at(events[0].start)
    browser.save_screenshot(str(artefacts / "demo_ground.png"))


def test_two_people_at_once(browser, address, uploads, model, tmp_path):
    with headless_browser(tmp_path / "second") as other:
        pages = [Page(browser, address), Page(other, address)]
        for page, video in zip(pages, uploads, strict=True):
            page.upload(video)
            page.wait(lambda page=page: page.video("readyState"))
            page.write(QUERIES[0])
        for page in pages:
            page.ask()
        for page, video in zip(pages, uploads, strict=True):
            question = moment_retrieval_question(QUERIES[0])
            expected = len(model.chat(video, question, max_new_tokens=12).events)
            page.wait(
                lambda page=page, expected=expected: (
                    len(page.all("#distime-timeline g.event")) == expected
                )
            )


def test_on_a_telephone(browser, address, uploads, artefacts):
    page = Page(browser, address)
    page.set_width(390)
    page.upload(uploads[0])
    page.wait(lambda: page.video("readyState"))
    page.write(QUERIES[0])
    page.ask()
    row = page.one("#distime-timeline g.event")
    browser.save_screenshot(str(artefacts / "demo_telephone.png"))
    assert row.size["height"] >= 44 and row.size["width"] > 250
    words = [text.text for text in page.all("#distime-timeline text")]
    assert words[:3] == ["start", "end", "answer"]
    page.set_width(None)


def test_a_type_that_browsers_do_not_play(browser, address, uploads, model, tmp_path):
    """A copy is shown; asked is about the file itself, and nothing complains meanwhile."""
    path = tmp_path / "old camera.avi"
    with open_video(uploads[0]) as reader, av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for number, picture in enumerate(reader.frames(range(reader.num_frames))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    page = Page(browser, address)
    page.upload(path)
    page.wait(lambda: page.video("readyState") and page.video("duration") > 20)
    assert not page.all("[data-testid=toast-body]")
    assert "a copy without sound" in page.one("#distime-video").text
    page.write(QUERIES[0])
    page.ask()
    link = page.one("#distime-downloads a").get_attribute("href")
    data = json.loads(unquote(link.split(",", 1)[1]))
    assert data["video"] == path.name
    (start, *_) = [event["start"] for event in data["events"]]
    assert start == pytest.approx(
        model.ground(path, QUERIES[0], max_new_tokens=12)[0].start, abs=0.01
    )


def test_what_the_page_says_and_hides(browser, address):
    page = Page(browser, address)
    assert "DisTime-tiny" in page.one("h1 ~ p").text
    assert page.all("#distime-question")
    page.choose(LIST)
    page.wait(lambda: not page.all("#distime-question"))
    page.choose(ASK)
    page.wait(lambda: page.all("#distime-question"))
    pictures = page.all("#distime-examples img")
    shown = "return arguments[0].complete && arguments[0].naturalWidth"
    assert len(pictures) == 3
    page.wait(lambda: all(browser.execute_script(shown, picture) for picture in pictures))


def test_an_answer_can_be_stopped(browser, address, uploads, monkeypatch):
    steps, choose = [], Batch.choose
    page = Page(browser, address)
    page.upload(uploads[0])
    page.wait(lambda: page.video("readyState"))
    page.write(QUERIES[0])
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "choose", lambda batch: steps.append(len(batch.rows)) or choose(batch))
        patch.setattr(Batch, "_has_ended", lambda batch, row: False)  # an answer without end
        page.ask()
        page.wait(lambda: len(steps) > 3)
        page.one("#distime-stop").click()
        page.wait(lambda: "Stopped." in page.one("#distime-answer").text)
        page.wait(lambda: len(steps) == (time.sleep(0.5) or len(steps)))  # nothing is decoded
    page.ask()  # and the next one is answered
    page.wait(lambda: page.all("#distime-answer .distime-answer"))


def test_descriptions_are_chapters(browser, address, uploads, model, artefacts):
    page = Page(browser, address)
    page.upload(uploads[1])
    page.wait(lambda: page.video("readyState"))
    page.choose(LIST)
    page.ask()
    events = sorted(model.caption(uploads[1], max_new_tokens=12), key=lambda e: e.start)
    page.wait(lambda: len(page.all("#distime-chapters button")) == len(events))
    chapter = page.all("#distime-chapters button")[-1]
    chapter.click()
    page.is_at(events[-1].start)
    if events[-1].end - events[-1].start > 1:
        page.wait(lambda: "now" in chapter.get_attribute("class"))

    page.one("#distime-how button").click()
    page.wait(lambda: "on cpu" in page.one("#distime-details").text)
    prompt = page.one("#distime-prompt textarea").get_attribute("value")
    assert prompt == model.prompt(uploads[1], EVENT_CAPTIONING)
    browser.save_screenshot(str(artefacts / "demo_caption.png"))


def test_an_example_can_be_asked_as_it_stands(browser, address, artefacts):
    page = Page(browser, address)
    row = page.one("table tbody tr")
    browser.execute_script("arguments[0].click()", row)
    page.wait(lambda: page.video("readyState"))
    page.ask()
    page.wait(lambda: page.all("#distime-answer .distime-answer"))
    browser.save_screenshot(str(artefacts / "demo_example.png"))


def test_a_new_video_clears_the_answer(browser, address, uploads):
    page = Page(browser, address)
    page.upload(uploads[0])
    page.wait(lambda: page.video("readyState"))
    page.write(QUERIES[0])
    page.ask()
    page.wait(lambda: page.all("#distime-answer .distime-answer"))
    browser.execute_script("arguments[0].click()", page.one("table tbody tr"))
    page.wait(lambda: not page.all("#distime-answer .distime-answer"))
    page.wait(lambda: not page.all("#distime-timeline svg"))


def test_mistakes_are_messages(browser, address, uploads, tmp_path, artefacts):
    page = Page(browser, address)
    page.ask()
    assert "Write what to look for." in page.message()
    page = Page(browser, address)
    page.choose(ASK)
    page.write("what?")
    page.ask()
    assert "Choose a video first." in page.message()
    browser.save_screenshot(str(artefacts / "demo_error.png"))
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video at all")
    page = Page(browser, address)
    page.upload(broken)
    page.write(QUERIES[0])
    page.wait(lambda: page.all("#distime-video video"))
    page.ask()
    assert "This is no video of a known type" in page.message()


def test_nothing_is_fetched_from_elsewhere(browser, address):
    Page(browser, address)
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    names = browser.execute_script(script)
    assert names
    assert not [n for n in names if not n.startswith((address, "data:", "blob:"))]


@pytest.fixture
def trained():
    folder = os.environ.get("DISTIME_CHECKPOINT")
    if not folder:
        pytest.skip("DISTIME_CHECKPOINT does not name what `make quickstart` trained")
    return DisTime.from_pretrained(folder, device="cpu")


def test_what_the_quickstart_trained_serves_the_page(trained, artefacts, tmp_path):
    """Its answer to a held-out video; the picture is docs/images/demo.png."""
    video = make_video(HELD_OUT)
    write_video(video, tmp_path)
    event = video.events[0]
    (tmp_path / "profile").mkdir()
    with (
        serving(trained, num_examples=0) as address,
        headless_browser(tmp_path / "profile", 1280, 800) as browser,
    ):
        page = Page(browser, address)
        page.upload(tmp_path / video.file_name)
        page.wait(lambda: page.video("readyState"))
        page.write(event.query)
        page.ask()
        page.one("#distime-timeline g.event").click()
        answer = trained.ground(tmp_path / video.file_name, event.query)[0]
        page.is_at(answer.start)
        page.wait(lambda: page.seconds() > answer.start + 1)
        browser.save_screenshot(str(artefacts / "demo.png"))
    assert iou((answer.start, answer.end), (event.start, event.end)) > 0.5
