"""`distime prepare csv`: a table becomes training data that `distime check` passes, or its rows are
named."""

import csv
import json
import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.cli import main
from distime.data.csv_table import TableSettings, item, prepare_table, seconds, split
from distime.data.official import PrepareError
from distime.toy.synthetic import write_videos


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "videos of mine"
    return folder, [spec.file_name for spec in write_videos(folder, 3, seed=1, workers=1)]


def write_table(path, rows, header=("video", "query", "start", "end"), delimiter=",", **options):
    with path.open("w", encoding=options.pop("encoding", "utf-8"), newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, **options)
        writer.writerows([header, *rows])
    return path


def prepare(root, rows, tmp_path, flags=(), **options):
    table = write_table(tmp_path / "table.csv", rows, **options)
    arguments = ["prepare", "csv", str(table), "--out", str(tmp_path / "out")]
    return main([*arguments, "--video-root", str(root[0]), *flags])


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("style", [{}, {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}])
def test_a_table_becomes_data_that_check_passes(root, tmp_path, capsys, delimiter, style):
    first, second, third = root[1]
    rows = [
        (first, 'he says "go", and; leaves', "0:01", "2.5"),
        (second, "it\nturns", "0", "0:00:01.5"),
        (first, 'he says "go", and; leaves', "0.2", "0.8"),
        (third, "ein Ball fällt", "1", "2"),
        ("", "", "", ""),
    ]
    options = {"delimiter": delimiter, "encoding": "utf-8-sig", **style}
    assert prepare(root, rows, tmp_path, ["--held-out", "0.3"], **options) == 0
    out = tmp_path / "out"
    assert "3 items with 4 intervals: 2 videos to train, 1 held out" in capsys.readouterr().out
    for meta in ("meta.json", "held_out.json"):
        assert main(["check", str(out / meta), "--workers", "1"]) == 0
        assert "0 errors, 0 warnings" in capsys.readouterr().out
    train, held_out = lines_of(out / "train.jsonl"), lines_of(out / "held_out.jsonl")
    assert not {one["video"] for one in train} & {one["video"] for one in held_out}
    by_query = {one["conversations"][0]["value"]: one for one in train + held_out}
    twice = next(one for words, one in by_query.items() if 'says "go", and; leaves' in words)
    assert twice["tgt"] == [0.2, 0.8, 1, 2.5]
    assert twice["conversations"][1]["value"].count("<TIME_STAMP>") == 2


def test_columns_question_and_delimiter_are_flags(root, tmp_path):
    header = ("clip", "note", "what happens", "from", "to")
    rows = [(name, "x", "a ball rolls", "0", "1") for name in root[1]]
    flags = ["--video-column", "clip", "--query-column", "what happens", "--start-column", "from"]
    flags += ["--end-column", "to", "--question", "When is it that {query}?", "--held-out", "0"]
    flags += ["--delimiter", "tab"]
    assert prepare(root, rows, tmp_path, flags, header=header, delimiter="\t") == 0
    (first, *_) = lines_of(tmp_path / "out" / "train.jsonl")
    assert first["conversations"][0]["value"] == "<video>\nWhen is it that a ball rolls?"
    assert not (tmp_path / "out" / "held_out.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("{}", "q", "2", "1"), "2 - 1 ends before it starts"),
        (("{}", "q", "1", "1"), "is a point"),
        (("{}", "q", "-1", "1"), '"start" is "-1", before the video begins'),
        (("{}", "q", "", "1"), '"start" is missing'),
        (("{}", "", "0", "1"), '"query" is missing'),
        (("", "q", "0", "1"), '"video" is missing'),
        (("{}", "q", "nan", "1"), '"start" is "nan": write seconds'),
        (("{}", "q", "0", "1e9"), '"end" is "1e9"'),
        (("{}", "q", "0", "1:75"), "below 60"),
        (("{}", "q", "0", "1:75:00"), "below 60"),
        (("{}", "q", "0", "1,5"), "write seconds"),
        (("{}", "q", "900", "901"), "900 - 901 lies beyond the"),
        (("{}", "q", "0", "5:00"), "0 - 300 lies beyond the"),
        (("none.mp4", "q", "0", "1"), "no such video"),
        (("{}", "see <image> here", "0", "1"), "<image>"),
        (("{}", "at <TIME_STAMP>", "0", "1"), "TIME_STAMP"),
        (("{}", "q", "0", "1", "more"), "5 values for 4 columns"),
    ],
)
def test_errors_name_the_row_and_nothing_is_written(root, tmp_path, capsys, row, problem):
    good = (root[1][1], "fine", "0", "1")
    bad = tuple(text.format(root[1][0]) for text in row)
    assert prepare(root, [good, good[:1] + ("two\nlines", "0", "1"), bad], tmp_path) == 1
    found = capsys.readouterr().err
    assert re.search(rf"table\.csv:5: .*{re.escape(problem)}", found), found
    assert "1 things to mend" in found or "2 things to mend" in found
    assert not (tmp_path / "out").exists()


def test_all_problems_are_said_at_once(root, tmp_path, capsys):
    rows = [(name, f"q{number}", "3", "2") for name in root[1] for number in range(9)]
    assert prepare(root, rows, tmp_path) == 1
    said = capsys.readouterr().err
    assert "27 things to mend" in said and "... and 7 more" in said and "table.csv:2:" in said


def test_what_is_amended_is_said(root, tmp_path, capsys):
    folder, names = root
    from distime.processing.video import open_video

    with open_video(folder / names[0]) as video:
        duration = video.duration
    rows = [(names[0], "q", "0", str(duration + 0.4)), (names[1], "q", "0", "1")]
    rows += [(names[1].removesuffix(".mp4"), "q", "0:00", "0:01"), ("none.mp4", "q", "0", "1")]
    assert prepare(root, rows, tmp_path, ["--available-only", "--held-out", "0"]) == 0
    out = capsys.readouterr().out
    assert "table.csv:2: the end" in out and "table.csv:4: left out, line 3 says the same" in out
    assert "left out: 1 rows whose video is missing" in out
    assert [one["video"] for one in lines_of(tmp_path / "out" / "train.jsonl")] == names[:2]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--held-out", "1"], "--held-out 1.0: give a share"),
        (["--held-out", "nan"], "--held-out nan"),
        (["--question", "When?"], "--question 'When?': write {query}"),
        (["--start-column", "begin"], "--start-column"),
        (["--delimiter", ", "], "--delimiter"),
        (["--end-column", "start"], "four different"),
        (["--source", "."], "--source"),
    ],
)
def test_flags_that_do_not_fit(root, tmp_path, capsys, flags, problem):
    assert prepare(root, [(root[1][0], "q", "0", "1")], tmp_path, flags) == 1
    assert problem in capsys.readouterr().err


def test_one_video_cannot_be_split(root, tmp_path, capsys):
    assert prepare(root, [(root[1][0], "q", "0", "1")], tmp_path) == 1
    assert "nothing would be left to train" in capsys.readouterr().err


def test_csv_and_official_data_do_not_mix(tmp_path, capsys):
    assert main(["prepare", "charades", "--out", str(tmp_path), "--seed", "1"]) == 1
    assert "--seed belongs to" in capsys.readouterr().err
    assert main(["prepare", "charades", "--out", str(tmp_path)]) == 1
    assert "--source" in capsys.readouterr().err
    assert main(["prepare", "csv", "--out", str(tmp_path)]) == 1
    assert "name the table" in capsys.readouterr().err


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_times_are_read_as_they_are_written(hours, minutes, rest, thousandths):
    total = 3600 * hours + 60 * minutes + rest + thousandths / 1000
    end = f"{rest:02d}.{thousandths:03d}"
    assert seconds(f"{hours}:{minutes:02d}:{end}") == pytest.approx(total)
    assert seconds(f" {60 * hours + minutes}:{end} ") == pytest.approx(total)
    assert seconds(f"{total:.3f}") == pytest.approx(total)


@given(st.text(max_size=8))
def test_what_is_no_time_is_refused(text):
    try:
        value = seconds(text)
    except ValueError as error:
        assert str(error)
    else:
        assert value >= 0 and re.fullmatch(r"[\d:.]+", text.strip())


@given(st.sets(st.text(min_size=1), min_size=2, max_size=30), st.floats(0.01, 0.9), st.integers())
def test_the_split_is_by_video_and_by_seed(videos, share, seed):
    settings = TableSettings(held_out=share, seed=seed)
    chosen = split(sorted(videos), settings)
    assert chosen <= videos and chosen == split(sorted(videos), settings)
    assert abs(len(chosen) - max(1, share * len(videos))) <= 0.5 or len(chosen) == 1


def test_seeds_differ():
    videos = [f"{number}.mp4" for number in range(40)]
    chosen = defaultdict(int)
    for seed in range(5):
        for video in split(videos, TableSettings(seed=seed)):
            chosen[video] += 1
    assert len(chosen) > 8  # not always the same four


def test_items_by_hand():
    made = item("a.mp4", "q", [(0, 1), (2, 3), (4, 5)], "At {query}?")
    assert made["conversations"][1]["value"] == (
        "The event is depicted at <TIME_STAMP>, <TIME_STAMP> and <TIME_STAMP>."
    )


def test_a_folder_that_is_not_there(tmp_path):
    table = write_table(tmp_path / "t.csv", [])
    with pytest.raises(PrepareError, match="no such folder"):
        prepare_table(table, tmp_path / "out", TableSettings(), tmp_path / "none")
    with pytest.raises(PrepareError, match="it has no rows"):
        prepare_table(table, tmp_path / "out", TableSettings())
