"""Texts read as the owners of OMTG-Bench and E.T. Bench read them, and small cases by hand."""

from __future__ import annotations

import json

import pytest

from distime.metrics import time_texts


def test_texts_are_read_as_their_owners_read_them(shared):
    path = shared / "benchmarks_2026" / "parsing.json"
    if not path.is_file():
        pytest.skip("the owners' readings are not on this machine")
    for entry in json.loads(path.read_text())["texts"]:
        text, expected = entry["text"], entry["parsed"]
        read = [list(one) for one in time_texts.tagged_or_worded(text)]
        assert read == expected["omtg_bench parse_time_intervals"], text
        read = [list(one) for one in time_texts.ascending_ranges(text)] or None
        stops = isinstance(expected["etbench tvg_format"], str)
        assert read == (None if stops else expected["etbench tvg_format"]), text
        assert time_texts.first_number(text) == expected["etbench vhd number"], text
        events = time_texts.captioned_ranges(text)
        read = [[list(span) for span, _ in events], [caption for _, caption in events]]
        assert (read if events else [None, None]) == expected["etbench dvc_format"], text


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("<time>9 - 3 seconds</time> <time>0:30 - 1:00 second</time>", [(30, 60)]),
        ("4 - 6 seconds and 1:00 - 1:05.5 seconds, 7 to 8", [(4, 6), (60, 65.5)]),
        ("[3, 5], 1 to 2; 3 - 5", [(1, 2), (3, 5)]),
        ("starts at 3 seconds and ends at 9", [(3, 9)]),
        ("starts at 3 seconds and ends at 12", []),
        ("It does not happen.", []),
    ],
)
def test_moments_in_text(text, spans):
    assert time_texts.tagged_or_worded(text) == spans


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("9 - 3, then 4-5", [(3, 9), (4, 5)]),
        ("10 to 20", [(10, 20)]),
        ("It starts at 5 s!\nIt ends at 9 s", [(5, 9)]),
        ("It starts at 5 s.", []),
        ("12..5 - 20", []),
        ("[[10, 20]]", []),
    ],
)
def test_ascending_ranges(text, spans):
    assert time_texts.ascending_ranges(text) == spans


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("0 - 5 seconds, A man walks. 12 - 10 seconds, he sits.",
         [((0, 5), "a man walks."), ((10, 12), "he sits.")]),
        ("Start time: 5, end time: 9, description: a man walks", [((5, 9), "a man walks")]),
        ("start time 5, end time 9 a man walks", []),
        ("At 1:05 he sits down", [((45, 85), "At 1:05 he sits down.")]),
        ("He walks for 15 seconds then sits", [((15, 55), "then sits.")]),
        ("1 - 2 s", []),
        ("", []),
    ],
)  # fmt: skip
def test_captions_with_times(text, events):
    assert time_texts.captioned_ranges(text) == events
