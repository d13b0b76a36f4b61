"""The page about an annotation: one file with numbers, reasons, frames and timelines."""

import re
from html.parser import HTMLParser

import pytest

from annotate.annotated import write_annotation
from distime.annotate.verdicts import REJECTED, Verdict, VerdictLog
from distime.cli import main
from distime.show.annotation_page import AnnotationPageError, Worst, write_annotation_page
from distime.toy.synthetic import make_video, write_video

DURATION = make_video(3).duration


@pytest.fixture
def out(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    content = write_video(make_video(3), videos).read_bytes()
    for name in ("a.mp4", "<b>.mp4"):
        (videos / name).write_bytes(content)
    counts = {"a.mp4": 2, "<b>.mp4": 3, "gone.mp4": 1, "none.mp4": 0}
    return write_annotation(tmp_path / "out", videos, counts, DURATION)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_has_it_all_and_fetches_nothing(out):
    VerdictLog(out).add(
        Verdict(video="a.mp4", id="0-0", verdict=REJECTED, text="x", start=0, end=1, duration=9), 0
    )
    page = write_annotation_page(out, examples=4).read_text()
    tags = Tags(page)
    assert tags.sources and all(one.startswith("data:image/jpeg") for one in tags.sources)
    assert not re.search(r"https?://(?!www\.w3\.org)|<script|<link", page)
    assert "<b>.mp4" not in page and "&lt;b&gt;.mp4" in page
    for row in (["videos", "4"], ["events", "10"], ["kept", "6"], ["dropped", "4"]):
        cells = f'<td>{row[0]}</td><td class="number">{row[1]}</td>'
        assert cells in page
    assert "rejected by people" in page and "broken.mp4: it is empty" in page
    assert "agreement 0.10 is below 0.3" in page
    assert "thing 6, happens 6, 0 3" in page and "Of no kept event is known: similarity." in page
    charts = ("durations of videos", "where events are", "agreement", "words of an event")
    for title in charts:
        assert f"<title>{title}</title>" in page


def test_examples_begin_with_the_worst_agreement(out):
    page = write_annotation_page(out, examples=4).read_text()
    kept, _, lost = page.partition("<h2>Dropped events")
    kept = kept.partition("<h2>Kept events")[2]
    assert re.findall(r"<figcaption><b>(.*?)</b>", kept) == ["gone.mp4", *["&lt;b&gt;.mp4"] * 3]
    assert "No frames:" in kept  # of the video that is gone, the timeline all the same
    # The kept interval and both locators' on each timeline, and frames with those inside marked.
    assert kept.count('class="event"') == 3 * 4
    assert 3 * 7 <= kept.count("<img ") <= 3 * 11
    assert 3 * 3 <= kept.count('class="inside"') < kept.count("<img ") - 3 * 4
    assert lost.count("<figure>") == 4 and "nobody sees this." in lost


def test_without_examples_no_video_is_read(out, tmp_path):
    page = write_annotation_page(out, examples=0, videos=tmp_path / "none").read_text()
    assert "<figure>" not in page and "<h2>Intervals</h2>" in page


def test_the_command(out, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["annotate", "report", str(out), "--output", str(page)]) == 0
    assert capsys.readouterr().out == f"wrote {page}\n" and page.is_file()
    assert main(["annotate", "report", str(out), "--examples", "-1"]) == 1
    assert "--examples -1" in capsys.readouterr().err


def test_nothing_selected_yet(tmp_path):
    with pytest.raises(AnnotationPageError, match="selected.jsonl: not there; give the --out"):
        write_annotation_page(tmp_path)


def test_the_few_worst_are_kept_in_order():
    worst = Worst(3)
    for value, thing in [(5, "a"), (1, "b"), (3, "c"), (1, "d"), (2, "e")]:
        worst.add(value, thing)
    assert list(worst) == ["b", "d", "e"]
    assert not list(Worst(0))
