"""BLEU-1..4 and ROUGE-L of the COCO caption evaluation, with one reference per hypothesis.

The published ActivityNet dense captioning scorer computes them and prints neither; they are here
so that everything it computes can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from distime.metrics.cider import ngrams

# The published code adds these to numerators and denominators.
_TINY, _SMALL = 1e-15, 1e-9
_BETA = 1.2


def bleu(pairs: Sequence[tuple[str, str]], unmatched: Sequence[str] = ()) -> list[float]:
    """Return corpus BLEU-1, ..., BLEU-4 in [0, 1].

    Args:
        pairs: tokenised (hypothesis, reference).
        unmatched: hypotheses whose reference is one word that matches nothing.
    """
    length = reference_length = 0
    guesses, correct = [0] * 4, [0] * 4
    for hypothesis, reference in [*pairs, *((text, None) for text in unmatched)]:
        words = len(hypothesis.split())
        length += words
        reference_length += len(reference.split()) if reference is not None else 1
        for n in range(4):
            guesses[n] += max(0, words - n)
            if reference is not None:
                known = ngrams(reference)[n]
                correct[n] += sum(
                    min(count, known[gram])
                    for gram, count in ngrams(hypothesis)[n].items()
                    if gram in known
                )
    if not length and not reference_length:
        return [0.0] * 4
    product, values = 1.0, []
    for n in range(4):
        product *= (correct[n] + _TINY) / (guesses[n] + _SMALL)
        values.append(product ** (1 / (n + 1)))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    return [value * math.exp(1 - 1 / ratio) for value in values] if ratio < 1 else values


def rouge_l(hypothesis: str, reference: str) -> float:
    """Return ROUGE-L of a pair in [0, 1]: F-measure of the longest common subsequence."""
    words, reference_words = hypothesis.split(" "), reference.split(" ")
    if not set(words) & set(reference_words):
        return 0.0
    common = _longest_common_subsequence(words, reference_words)
    precision, recall = common / len(words), common / len(reference_words)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    best = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            kept = best[j]
            best[j] = diagonal + 1 if word == other else max(kept, best[j - 1])
            diagonal = kept
    return best[-1]
