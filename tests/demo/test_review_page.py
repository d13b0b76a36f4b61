"""The review page in a real browser: dragging, correcting, accepting, rejecting, two people."""

import pytest

from annotate.annotated import lines, write_annotation
from demo.browser import Page, headless_browser
from distime.annotate.dialogues import write_dialogues
from distime.serve.review.review_server import reviewing
from distime.toy.synthetic import make_video, write_video

pytestmark = pytest.mark.slow
DURATION = make_video(3).duration


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture
def out(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    content = write_video(make_video(3), videos).read_bytes()
    for name in ("a.mp4", "b <b>.mp4"):
        (videos / name).write_bytes(content)
    counts = {"a.mp4": 2, "b <b>.mp4": 2}
    return write_annotation(tmp_path / "out", videos, counts, DURATION)


class Review(Page):
    """The review page, by what a person does there."""

    opened = "#events button"

    def time(self, name):
        return float(self.one(f"#{name}").get_attribute("aria-valuenow"))

    def drag(self, name, seconds):
        """Drag an end of the interval by so many seconds."""
        from selenium.webdriver import ActionChains

        pixels = seconds / DURATION * self.one("#stage").size["width"]
        ActionChains(self.browser).drag_and_drop_by_offset(
            self.one(f"#{name}"), round(pixels), 0
        ).perform()

    def click(self, name):
        self.one(f"#{name}").click()

    def said(self, words):
        return self.wait(lambda: words in self.one("#message").text)

    def progress(self):
        return self.one("#progress").text

    def playing(self, name):
        return self.browser.execute_script(f"return document.querySelector('#player').{name}")


def test_drag_correct_accept_reject_and_train(browser, out):
    with reviewing(out) as address:
        page = Review(browser, address)
        # The worst agreement first: the second video.
        assert page.one("#name").text == "b <b>.mp4" and page.progress().startswith("0 of 6")
        page.one("#reviewer").send_keys("ada")
        page.wait(lambda: page.playing("readyState"))
        assert (page.time("start"), page.time("end")) == (0.0, 1.5)
        assert not page.one("#correct").is_enabled()
        page.drag("end", 2.0)
        moved = page.time("end")
        assert moved == pytest.approx(3.5, abs=0.1)
        assert page.playing("currentTime") == pytest.approx(moved, abs=0.1)  # what is there
        page.drag("start", 5)  # no further than the end
        assert page.time("start") < page.time("end")
        page.drag("start", -5)
        assert page.time("start") == 0 and not page.one("#accept").is_enabled()
        page.one("#end").send_keys("\ue014")  # the right arrow key: a tenth of a second
        assert page.time("end") == pytest.approx(moved + 0.1, abs=0.011)
        page.click("correct")
        page.said("Saved.")
        page.wait(lambda: page.progress().startswith("1 of 6"))
        page.click("accept")  # the next open one
        page.wait(lambda: page.progress().startswith("2 of 6"))
        assert "dropped: agreement 0.10" in page.one("#events button[aria-current]").text
        page.click("reject")
        page.wait(lambda: page.progress().startswith("3 of 6"))
        page.wait(lambda: page.one("#name").text == "a.mp4")  # the next video
        assert len(page.all("#videos button")) == 1
        page.click("open")
        page.wait(lambda: len(page.all("#videos button")) == 2)
    verdicts = lines(out / "reviewed.jsonl")
    assert [one["verdict"] for one in verdicts] == ["corrected", "accepted", "rejected"]
    assert {one["reviewer"] for one in verdicts} == {"ada"}
    assert verdicts[0]["end"] == pytest.approx(moved + 0.1, abs=0.011)
    # Another start of the server knows it, and so do the dialogues.
    with reviewing(out) as address:
        page = Review(browser, address)
        assert page.progress().startswith("3 of 6")
    write_dialogues(out, out.parent / "videos", held_out=0)
    times = [one["tgt"] for one in lines(out / "train.jsonl") if one["video"] == "b <b>.mp4"]
    assert [0, round(verdicts[0]["end"], 2)] in times


def test_two_people_do_not_lose_each_others_work(browser, out, tmp_path):
    (tmp_path / "second").mkdir()
    with reviewing(out) as address, headless_browser(tmp_path / "second") as other:
        mine, yours = Review(browser, address), Review(other, address)
        yours.one("#reviewer").send_keys("bob")
        mine.drag("end", 1.0)
        moved = mine.time("end")
        yours.click("reject")
        yours.said("Saved.")
        mine.click("correct")
        mine.said("bob has rejected this event meanwhile")
        assert len(lines(out / "reviewed.jsonl")) == 1
        assert "rejected by bob" in mine.one("#events button[aria-current]").text
        assert mine.time("end") == moved  # nothing of mine is lost either
        mine.click("correct")
        mine.said("Saved.")
    assert [one["verdict"] for one in lines(out / "reviewed.jsonl")] == ["rejected", "corrected"]


def test_words_are_corrected_and_the_interval_plays(browser, out):
    with reviewing(out) as address:
        page = Review(browser, address)
        page.wait(lambda: page.playing("readyState"))
        box = page.one("#text")
        box.clear()
        box.send_keys("a ring <script>turns</script>.")
        page.click("play")
        page.wait(lambda: page.playing("currentTime") > 0.3)
        page.wait(lambda: page.playing("paused"))
        assert page.playing("currentTime") == pytest.approx(1.5, abs=0.4)
        page.click("correct")
        page.said("Saved.")
        assert "a ring <script>turns</script>." in page.one("#events").text
        names = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        assert all(name.startswith(address) for name in browser.execute_script(names))


def test_on_a_telephone(browser, out):
    with reviewing(out) as address:
        page = Review(browser, address)
        page.set_width(390)
        assert page.one("#stage").size["width"] > 300
        page.drag("end", 3.0)
        page.click("correct")
        page.said("Saved.")
        page.set_width(None)
