"""CIDEr, BLEU and ROUGE-L by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distime.metrics.bleu_rouge import bleu, rouge_l
from distime.metrics.cider import cider


def test_cider_by_hand():
    # Two pairs, no n-gram shared between the references: every known n-gram weighs log 2, and a
    # perfect pair has similarity 1 at each n that it has.
    assert cider([("a b c d", "a b c d"), ("x", "y")]) == pytest.approx(10 * 1 / 2)
    # Two words only: n = 3 and 4 have nothing to compare.
    assert cider([("a b", "a b"), ("x", "y")]) == pytest.approx(10 * (2 / 4) / 2)


def test_cider_counts_weights_and_length():
    # "a" is in both references, so it weighs log(2/2) = 0 and only "b" counts.
    pairs = [("a b", "a b"), ("a", "a")]
    bigrams = 1.0
    assert cider(pairs) == pytest.approx(10 * (1.0 + bigrams) / 4 / 2)
    # Unigrams b, b against b: clipped weight 1 * 1 over norms 2 * 1; one bigram more.
    penalty = math.exp(-(1**2) / 72)
    assert cider([("b b", "b"), ("x", "y")]) == pytest.approx(10 * (0.5 * penalty) / 4 / 2)


def test_cider_of_a_single_pair_is_zero():
    assert cider([("a b c d", "a b c d")]) == 0
    assert cider([]) == 0 and cider([], unmatched=3) == 0


def test_unmatched_captions_belong_to_the_corpus():
    # As if two more pairs had references that match nothing.
    with_nonsense = [("a b c d", "a b c d"), ("p q", "nonsense"), ("a", "rubbish")]
    assert cider(with_nonsense[:1], unmatched=2) == pytest.approx(cider(with_nonsense))


def test_cider_splits_at_no_break_spaces():
    assert cider([("1\u00a01/2 cups", "1 1/2 cups"), ("x", "y")]) == pytest.approx(10 * 3 / 4 / 2)


captions = st.lists(st.sampled_from(["a", "b", "c", "ü"]), max_size=6).map(" ".join)
pairs = st.lists(st.tuples(captions, captions), max_size=5)


@given(pairs, st.integers(0, 3))
def test_cider_properties(pairs, unmatched):
    value = cider(pairs, unmatched)
    assert 0 <= value <= 10 + 1e-9
    assert cider(pairs[::-1], unmatched) == pytest.approx(value)


def test_bleu_by_hand():
    # Unigrams 3 of 4, bigrams 1 of 3, no trigram; as long as its reference.
    values = bleu([("a b x c", "a b c d")])
    assert values[0] == pytest.approx(3 / 4)
    assert values[1] == pytest.approx(math.sqrt(3 / 4 * 1 / 3))
    assert 0 < values[2] < 1e-4
    # Half as long: the brevity penalty.
    assert bleu([("a b", "a b c d")])[0] == pytest.approx(math.exp(1 - 2))
    assert bleu([]) == [0, 0, 0, 0]


def test_bleu_of_unmatched_captions():
    assert bleu([("a b", "a b")], ["x y"])[0] == pytest.approx(2 / 4)


def test_rouge_by_hand():
    precision, recall = 2 / 3, 2 / 4
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l("a x c", "a b c d") == pytest.approx(expected)
    assert rouge_l("a b", "a b") == pytest.approx(1)
    assert rouge_l("a", "b") == 0 and rouge_l("", "b") == 0
