"""The page about a run: numbers worked out by hand, everything escaped, nothing fetched."""

import json
import math
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import Result
from distime.cli import main
from distime.evaluate import Settings, run
from distime.evaluate.journal import answer_to_dict
from distime.evaluate.runner import group
from distime.processing.answers import Answer, Event
from distime.show.calibration import calibration_bins, rank_correlation
from distime.show.charts import bar_chart
from distime.show.report import Sample, chosen_samples, fit, verdict
from evaluate.tiny_benchmarks import write_json

NASTY = '<img src=x onerror="alert(1)"> & "a"'


class Page(HTMLParser):
    """What stands on a page: its tables, its words, and what it would fetch."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.words, self.fetched, self.tags = [], "", [], []
        self.in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        for name, value in attributes:
            is_link = name in ("src", "href", "data", "poster")
            if is_link and not value.startswith(("data:", "#")):
                self.fetched.append(value)
            assert not name.startswith("on")

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.words += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, *begin):
        return next(row for row in self.rows if row[: len(begin)] == list(begin))


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert rank_correlation([0, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(rank_correlation([1, 1], [1, 2]))
    assert math.isnan(rank_correlation([1], [2]))


def test_calibration_bins_are_of_equal_count():
    sure = [0.9, 0.1, 0.8, 0.2]
    low, high = calibration_bins(sure, [1.0, 0.0, 0.5, 0.4], least=2)
    assert (low.low, low.high, low.count, low.mean_iou, low.hits) == (0.1, 0.2, 2, 0.2, 0.0)
    assert (high.low, high.high, high.count, high.mean_iou, high.hits) == (0.8, 0.9, 2, 0.75, 1.0)
    assert [b.count for b in calibration_bins(range(105), [0.5] * 105)] == [11] * 5 + [10] * 5
    assert calibration_bins([], []) == [] and len(calibration_bins([0.5], [1.0])) == 1


def test_what_is_said_about_confidence():
    rising = np.linspace(0, 1, 50)
    assert verdict(rising, rising).endswith("surer times are better ones.")
    assert verdict(rising, rising[::-1]).endswith("surer times are worse ones.")
    assert verdict(rising, [0, 1] * 25).endswith("no relation is seen.")
    assert "do not differ enough" in verdict([0.5, 0.5], [0, 1])


def test_fit_of_captions_counts_every_true_event():
    truth = [Event(0, 10, text="a"), Event(20, 30, text="b")]
    assert fit([Event(0, 5), Event(50, 60)], truth) == 0.25
    assert fit([], truth) == 0
    assert fit([Event(0, 5), Event(0, 10)], [Event(0, 10)]) == 0.5  # only the first one counts


def test_bars_are_as_high_as_their_values():
    svg = bar_chart([1, 0.5], ["a", NASTY], title="t", axis="x", top=2)
    heights = [float(part.split('"')[0]) for part in svg.split('height="')[1:]]
    assert heights[0] == 2 * heights[1] > 0
    assert NASTY not in svg and "&lt;img" in svg


def event(start, end, confidence):
    return Event(start, end, confidence, np.full((2, 5), 0.2, np.float32))


@pytest.fixture
def hand_made(tmp_path):
    """A run of Charades whose IoUs are 1, 0.5, 0 and, where no time was named, 0; no videos."""
    words = ["opens", "closes", NASTY, "sits"]
    items = [
        {"video": "v", "query": query, "duration": 20.0, "relevant_windows": [[4.0, 8.0]]}
        for query in words
    ]
    annotation = write_json(tmp_path / "test_float.json", items)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    (tmp_path / "videos").mkdir()
    folder = tmp_path / "results" / "Charades-STA" / "mine"
    settings = Settings(
        checkpoint=tmp_path / "checkpoint", benchmark="charades", annotation=annotation,
        video_root=tmp_path / "videos", out_dir=folder, ground_truth=annotation,
    )  # fmt: skip
    said = ["It is <TIME_STAMP>.", "<TIME_STAMP>", f"{NASTY} <TIME_STAMP>", "never"]
    events = [(event(4, 8, 0.9),), (event(4, 6, 0.7),), (event(10, 12, 0.2),), ()]
    answers = [Answer(*pair, 20.0) for pair in zip(said, events, strict=True)]
    from distime.benchmarks import find

    queries = list(find("charades")(settings).queries())
    (task,) = group(queries, settings.video_root)
    lines = [
        {"settings": {}},
        {"key": task.key, "video": "v", "answers": [answer_to_dict(a) for a in answers]},
    ]
    (folder / "answers").mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "answers" / "charades-a.jsonl").write_text(text)
    counts = {"videos": 1, "queries": 4, "answered": 4, "without_time": 1}
    description = {"run": "charades", "settings": settings.to_dict(), "counts": counts}
    write_json(folder / "run.json", description)
    Result("charades", {"mIoU": 37.5}, {"missing": 0}, warnings=(NASTY,)).write(
        folder / "score.json"
    )
    return folder


def test_a_hand_made_run(hand_made, capsys):
    shutil.rmtree(hand_made.parents[2] / "checkpoint")  # a report needs no checkpoint
    assert main(["report", str(hand_made), "--html", "--examples", "2"]) == 0
    assert capsys.readouterr().out == f"wrote {hand_made / 'report.html'}\n"
    page = Page(hand_made / "report.html")
    assert page.row("mIoU") == ["mIoU", "37.50", "52.03", "53.54"]
    assert page.row("without time") == ["without time", "1"]
    assert "Mean 0.375, median 0.250; 2 of 4 do not overlap at all, 1 of these" in page.words
    # Of the three times: confidences 0.2, 0.7, 0.9 and IoUs 0, 0.5, 1. One bar would say nothing.
    assert "is +1.00 over 3 times" in page.words and "3 times are too few" in page.words
    assert "Mean IoU by confidence" not in page.words
    figures = page.words.split("Examples")[1]
    places = [figures.index(f"{name} {number}") for name in ("worst", "best") for number in (1, 2)]
    assert places == sorted(places)
    # The video is not there, and the page does with timelines.
    assert page.words.count("No frames: ") == 4 and "img" not in page.tags
    assert page.tags.count("svg") >= 1 + 4 + 3
    assert page.words.count(NASTY) >= 3 and not page.fetched


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=20), st.integers(0, 8), st.booleans()
)
def test_examples_are_what_they_are_called(fits, count, is_choice):
    if is_choice:
        fits = [float(fit > 0.3) for fit in fits]
    expected = "B" if is_choice else ""
    known = [Sample(fit, number, None, [], expected) for number, fit in enumerate(sorted(fits))]
    chosen = chosen_samples(known, count)
    everything = [sample.query for some in chosen.values() for sample in some]
    assert len(everything) == len(set(everything))
    assert all(len(some) <= count for some in chosen.values())
    shown = {name: [sample.fit for sample in some] for name, some in chosen.items()}
    if is_choice:
        assert shown.get("wrong", []) == [0] * min(count, fits.count(0))
        assert shown.get("right", []) == [1] * min(count, fits.count(1))
    elif len(set(fits)) < 2:
        assert list(shown) == ["answer"] and len(shown["answer"]) == min(count, len(fits))
    else:
        assert shown["worst"] == sorted(shown["worst"])
        assert shown["best"] == sorted(shown["best"], reverse=True)
        if count:
            assert (shown["worst"][0], shown["best"][0]) == (min(fits), max(fits))
        assert max(fits) not in shown["worst"] and min(fits) not in shown["best"]


def test_the_table_and_the_pages_find_the_same_runs(hand_made, capsys, tmp_path):
    """A results folder, the folder of one run, and one that is named otherwise."""
    elsewhere = tmp_path / "kept" / "another name"
    shutil.copytree(hand_made, elsewhere)
    for folder in (hand_made.parents[1], hand_made, elsewhere, elsewhere.parent):
        assert main(["report", str(folder)]) == 0
        table = capsys.readouterr().out
        assert "| Charades-STA | mIoU | 37.50 |" in table
        assert main(["report", str(folder), "--html"]) == 0
        assert "report.html" in capsys.readouterr().out


def test_an_index_leads_to_every_run(hand_made, capsys):
    root = hand_made.parents[1]
    for name in ("other & 1", "without predictions"):
        shutil.copytree(hand_made, hand_made.with_name(name))
    assert main(["report", str(root), "--html"]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {root / 'index.html'}\n")
    index = Page(root / "index.html")
    assert index.row("mine")[-3:] == ["37.50", "4", "4"]
    assert index.row("other & 1") and index.row("published 1B predictions")[-3] == "52.03"
    assert index.row("published 8B predictions")[-3] == "53.54"
    links = [root / unquote(link) for link in index.fetched]
    assert sorted(links) == sorted(root.glob("*/*/report.html")) and len(links) == 3


def test_an_annotation_that_is_gone(hand_made, capsys, tmp_path):
    moved = tmp_path / "elsewhere.json"
    (tmp_path / "test_float.json").rename(moved)
    assert main(["report", str(hand_made), "--html"]) == 1
    assert "test_float.json: no such file" in capsys.readouterr().err
    page = Page(hand_made / "report.html")
    assert page.row("mIoU")[1] == "37.50" and "cannot be shown" in page.words
    assert main(["report", str(hand_made), "--html", "--annotation", str(moved)]) == 0
    assert "is +1.00 over 3 times" in Page(hand_made / "report.html").words
    shutil.rmtree(hand_made / "answers")
    assert main(["report", str(hand_made), "--html", "--annotation", str(moved)]) == 1
    assert "no answer to a query" in capsys.readouterr().err


def test_predictions_alone_have_their_metrics(hand_made):
    (hand_made / "run.json").unlink()
    (hand_made / "results.json").write_text("{}")
    (hand_made / "score.json").touch()
    assert main(["report", str(hand_made.parents[1]), "--html"]) == 0
    page = Page(hand_made / "report.html")
    assert page.row("mIoU")[1] == "37.50" and "confidences are unknown" in page.words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "--html"], "no such folder"),
        ([".", "--html"], "holds no run.json"),
        ([".", "--examples", "3"], "--examples: it belongs to --html"),
        ([".", "--html", "--output", "x"], "--output: it names the table's file"),
        ([".", "--html", "--examples", "-1"], "--examples -1: give 0 or more"),
    ],
)
def test_wrong_calls(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_every_benchmark_has_a_page(one_process, tmp_path, capsys):
    """Moments, stages, dense captions and multiple choice, answered by a random model."""
    out = one_process["charades"][0]["out_dir"].parent
    shutil.copytree(out, tmp_path / "out")
    assert main(["report", str(tmp_path / "out"), "--html", "--examples", "1"]) == 0
    pages = {path.stem + path.parent.name: Page(path) for path in tmp_path.rglob("report*.html")}
    assert len(pages) == len(one_process)
    for name, page in pages.items():
        assert not page.fetched and page.row("queries")
        if name in ("reportmvbench", "reportlongvideobench", "report_stage2nextgqa"):
            assert "answers name the right option" in page.words and "expected " in page.words
        else:
            assert "How good the times are" in page.words
            # A random model's answers may all fit equally badly: none is then called the best.
            shown = 2 if "worst 1" in page.words else 1
            assert page.tags.count("img") == shown and ("answer 1" in page.words) == (shown == 1)


def test_a_run_draws_the_same_page(one_process, tmp_path):
    settings, _ = one_process["charades"]
    folder = tmp_path / "again"
    shutil.copytree(settings["out_dir"], folder)
    run(Settings(**settings | {"out_dir": folder, "plots": 2}))
    assert main(["report", str(folder), "--html", "--examples", "2"]) == 0
    assert (folder / "plots/index.html").read_text() == (folder / "report.html").read_text()
