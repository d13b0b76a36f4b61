"""Result files of other writers: numbers as text, as numpy prints them, tuples made to lists."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.benchmarks import score
from distime.benchmarks.anet_dvc import read_log
from distime.files import FileError
from distime.values import expect_readable, interval, number

WRITINGS = ["{}", " {} ", "np.float64({})", "numpy.float32({})", "float64({})"]
finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


@given(finite, st.sampled_from(WRITINGS))
def test_numbers_in_text_are_the_numbers(value, writing):
    assert number(writing.format(value)) == value


@pytest.mark.parametrize("value", ["", "ten", "nan", "inf", "1:20", "1 2", None, True, [1], "1,5"])
def test_what_is_no_number(value):
    assert number(value) is None
    with pytest.raises(FileError, match="here: expected .start, end."):
        interval([0, value], "here")


CHARADES = {"database": {"V": {"annotations": [{"label": "a", "segment": [1, 5]}]}}}
ANET = {"v": {"duration": 9, "timestamps": [[1, 5]], "sentences": ["a"]}}
NEXTGQA = {"7": {"duration": 10, "location": {"0": [[1, 5]]}}}


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize(
    ("benchmark", "truth", "predict"),
    [
        ("charades", CHARADES, lambda s, e: {"V": {"a": {"start": s, "end": e}}}),
        ("anet", ANET, lambda s, e: {"results": {"v-0": {"timestamp": [[s, e]]}}}),
        ("nextgqa", NEXTGQA, lambda s, e: {"7_0": [s, e]}),
    ],
)
def test_perfect_times_are_perfect_however_they_are_written(
    benchmark, truth, predict, writing, write
):
    write("test.csv", "video_id,qid,type\n7,0,CW\n")
    pred = write("p.json", predict(writing.format(1.0), writing.format(5.0)))
    name = "gsub_test.json" if benchmark == "nextgqa" else "g.json"
    metrics = score(benchmark, pred, write(name, truth)).metrics
    assert metrics["mIoU"] == pytest.approx(100, abs=1e-5)


@pytest.mark.parametrize(
    "times",
    ["1 - 5", "1.0 - 5.0", "1-5", "1.0s - 5.0s", "1 – 5", "1 to 5", "1 - 5 seconds", [1, 5]]
    + [["1", "5"], "np.float64(1.0) - np.float64(5.0)"],
)
def test_times_of_a_log(times, write):
    line = {"video_id": "v", "answer": json.dumps([{"event": "x", "timestamps": times}])}
    log = read_log(write("log.txt", json.dumps(line)))
    assert log.answers["v"].windows == [(1, 5)] and not log.unreadable


def test_a_log_of_which_much_is_unreadable(write):
    good = {"video_id": "v", "answer": "[]"}
    lines = [json.dumps(good), "nonsense", json.dumps(good | {"answer": "["})]
    gt = write("g.json", {"v": {"duration": 9, "timestamps": [[0, 9]], "sentences": ["x"]}})
    with pytest.raises(FileError, match=r"log.txt: 2 of 3 rows cannot be read.*line 2 'nonsense'"):
        score("anet_dvc", write("log.txt", "\n".join(lines)), gt)


@given(st.integers(0, 30), st.integers(1, 30))
def test_few_unreadable_rows_warn_and_many_are_refused(bad, good):
    rows, total = [f"row {i}" for i in range(bad)], bad + good
    if bad > total / 2 or bad >= 5 and bad > total / 10:
        with pytest.raises(FileError, match=f"f.json: {bad} of {total} rows"):
            expect_readable(rows, total, "f.json", "a list")
    else:
        assert len(expect_readable(rows, total, "f.json", "a list")) == (bad > 0)
