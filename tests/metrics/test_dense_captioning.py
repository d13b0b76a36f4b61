"""The Java-free parts of dense captioning, and METEOR's arithmetic."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from distime.metrics import meteor
from distime.metrics.dense_captioning import (
    CaptionedVideo,
    TimedCaptions,
    best_ordered_matching,
    calls_one_by_one,
    f1,
    iou_matrix,
    localisation,
    needed_pairs,
    soda_f,
)
from distime.metrics.paraphrases import cut_table, word_sequences


def events(*windows: tuple[float, float], prefix: str = "p") -> TimedCaptions:
    captions = [f"{prefix}{i}" for i in range(len(windows))]
    return TimedCaptions(np.array(windows, dtype=float).reshape(-1, 2), captions)


def test_iou_matrix_by_hand():
    a = np.array([[0, 10], [5, 5], [8, 2], [-1, -1.0]])
    b = np.array([[0, 10], [5, 20.0]])
    expected = [[1, 0.25], [0, 0], [0, 0], [0, 0]]
    assert iou_matrix(a, b) == pytest.approx(np.array(expected), abs=1e-8)


def test_localisation_is_strict_and_pairing_is_not():
    # An IoU of exactly 0.5 is pulled just below by the 1e-8, as in the published scorers.
    ious = np.array([[0.5, 0.0], [0.3, 0.9]])
    precision, recall = localisation(ious)
    assert precision.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert recall.tolist() == [1.0, 0.5, 0.5, 0.0]
    video = CaptionedVideo(events((0, 10), (20, 30)), events((0, 10), (20, 30), prefix="g"))
    video.__dict__["ious"] = ious
    assert video.matches[0.5] == ([("p0", "g0"), ("p1", "g1")], [])
    assert video.matches[0.3][0] == [("p0", "g0"), ("p1", "g0"), ("p1", "g1")]
    assert video.matches[0.9] == ([("p1", "g1")], ["p0"])
    # 2 x 2 pairs for SODA, and 3 + 2 + 2 + 2 with the garbage for METEOR.
    assert calls_one_by_one([video]) == 4 + 9


def test_nothing_predicted():
    video = CaptionedVideo(events(), events((0, 10), prefix="g"))
    assert [part.tolist() for part in localisation(video.ious)] == [[0] * 4, [0] * 4]
    assert soda_f(video.ious, np.zeros((0, 1))) == 0
    assert list(needed_pairs([video])) == []
    assert video.matches[0.3] == ([], [])


def test_only_overlapping_events_need_meteor():
    video = CaptionedVideo(events((0, 10), (50, 60)), events((0, 10), (9, 20), prefix="g"))
    assert set(needed_pairs([video])) == {("g0", "p0"), ("g1", "p0"), ("p0", "g0")}


def test_f1():
    assert f1(0, 0) == 0 and f1(1, 0) == 0
    assert f1(0.5, 1) == pytest.approx(2 / 3)


def test_soda_by_hand():
    # Matching (0, 0) and (1, 1) gives 0.5 + 0.4; crossing is not allowed.
    ious = np.array([[0.5, 1.0], [1.0, 0.5], [0.1, 0.1]])
    meteors = np.array([[1.0, 0.5], [0.5, 0.8], [0.0, 0.0]])
    assert best_ordered_matching((ious * meteors).T) == pytest.approx(0.9)
    assert soda_f(ious, meteors) == pytest.approx(f1(0.9 / 3, 0.9 / 2))


@given(
    numpy_st.arrays(
        float, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 9)
    )
)
def test_matching_is_the_best_of_all(values):
    rows, columns = values.shape
    best = max(
        sum(values[i, j] for i, j in zip(some_rows, some_columns, strict=True))
        for n in range(min(rows, columns) + 1)
        for some_rows in itertools.combinations(range(rows), n)
        for some_columns in itertools.combinations(range(columns), n)
    )
    assert best_ordered_matching(values) == best
    assert best_ordered_matching(values.T) == best


def statistics(text: str) -> np.ndarray:
    return np.array([[float(number) for number in text.split()]])


def test_meteor_score_by_hand():
    # 3 words against 4; 'a', 'man' exact (1 content, 1 function), 'runs' ~ 'is running' by the
    # last stage, one chunk.
    row = statistics("3 4 1 2  1 1 1 1  0 0 0 0  0 0 0 0  1 0 0 1  1 3 3")
    precision = (0.75 * 1 + 0.25 * 1 + 0.6 * 0.75) / (0.75 * 2 + 0.25 * 1)
    recall = (0.75 * 1 + 0.25 * 1 + 0.6 * 0.25 * 1) / (0.75 * 2 + 0.25 * 2)
    mean = 1 / (0.15 / precision + 0.85 / recall)
    expected = mean * (1 - 0.6 * (1 / 3) ** 0.2)
    assert meteor.scores(row)[0] == pytest.approx(expected)


def test_meteor_of_nothing_is_zero():
    rows = np.zeros((3, meteor.FIELDS))
    rows[1, :4] = 5, 4, 1, 1
    rows[2, 0] = 3
    assert meteor.scores(rows).tolist() == [0, 0, 0]
    assert meteor.scores(np.zeros((0, meteor.FIELDS))).tolist() == []


def test_paraphrase_table_is_cut_to_the_captions(tmp_path):
    entries = [
        ("0.1", "a man", "a guy"),  # both there
        ("0.2", "a man", "a boy"),  # no boy
        ("0.3", "man a", "a guy"),  # not in this order
        ("0.4", "runs", "is running fast"),
        ("0.5", "a b c d e f g h", "runs"),  # too long to look at: kept
    ]
    with gzip.open(tmp_path / "table.gz", "wt") as table:
        table.writelines(f"{line}\n" for entry in entries for line in entry)
    captions = ["a man runs", "a guy is running fast"]
    assert cut_table(tmp_path / "table.gz", tmp_path / "cut.gz", captions) == 3
    with gzip.open(tmp_path / "cut.gz", "rt") as table:
        kept = table.read().split("\n")
    assert kept[0::3] == ["0.1", "0.4", "0.5", ""]
    assert kept[4:6] == ["runs", "is running fast"]


def test_word_sequences():
    assert word_sequences(["a b  c", ""]) == {b"a", b"b", b"c", b"a b", b"b c", b"a b c"}
    assert b"1 2 3 4 5 6 7" in word_sequences(["1 2 3 4 5 6 7 8"])
    assert b"1 2 3 4 5 6 7 8" not in word_sequences(["1 2 3 4 5 6 7 8"])
