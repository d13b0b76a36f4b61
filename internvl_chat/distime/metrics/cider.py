"""CIDEr: TF-IDF weighted n-gram similarity of captions (Vedantam et al., CVPR 2015).

The variant of the COCO caption evaluation: n = 1..4, counts of the hypothesis clipped to those of
the reference, a Gaussian penalty on the difference in length, times ten. Document frequencies
come from the references of the same call; dense captioning makes one call per video and
threshold, so a call with one pair scores 0 (log 1 = 0).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

NGRAMS = (1, 2, 3, 4)
SIGMA = 6.0


@lru_cache(maxsize=1 << 16)
def ngrams(caption: str) -> tuple[dict[tuple[str, ...], int], ...]:
    """Return how often each n-gram occurs in a tokenised caption, for n = 1..4."""
    # split() without an argument: a no-break space inside a PTB token separates words here.
    words = caption.split()
    return tuple(
        Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in NGRAMS
    )


def cider(pairs: Sequence[tuple[str, str]], unmatched: int = 0) -> float:
    """Return the CIDEr of a corpus of (hypothesis, reference) pairs, 10 at most.

    Args:
        pairs: tokenised captions, one reference each.
        unmatched: how many further pairs have a reference that shares no n-gram with anything;
            they score 0 but belong to the corpus.

    Returns:
        The mean over all pairs, 0 where there are none.
    """
    total = len(pairs) + unmatched
    if not pairs or total == 1:
        return 0.0
    log_total = math.log(total)
    penalties = [_length_penalty(*pair) for pair in pairs]
    score = 0.0
    for n in range(len(NGRAMS)):
        grams = [(ngrams(hypothesis)[n], ngrams(reference)[n]) for hypothesis, reference in pairs]
        common = [[gram for gram in hyp if gram in ref] for hyp, ref in grams]
        if not any(common):
            break  # What shares no n-gram shares no longer one.
        documents = Counter([gram for _, reference in grams for gram in reference])
        idf = {gram: log_total - math.log(count) for gram, count in documents.items()}
        for (hyp, ref), shared, penalty in zip(grams, common, penalties, strict=True):
            if not shared:
                continue
            hyp_square = sum([(c * idf.get(gram, log_total)) ** 2 for gram, c in hyp.items()])
            ref_square = sum([(c * idf[gram]) ** 2 for gram, c in ref.items()])
            norm = math.sqrt(hyp_square * ref_square)
            if norm > 0.0:
                product = sum([min(hyp[g], ref[g]) * ref[g] * idf[g] ** 2 for g in shared])
                score += product / norm * penalty
    return 10 * score / len(NGRAMS) / total


def _length_penalty(hypothesis: str, reference: str) -> float:
    # The published code measures length as the number of bigrams.
    difference = max(0, len(hypothesis.split()) - 1) - max(0, len(reference.split()) - 1)
    return math.exp(-(difference**2) / (2 * SIGMA**2))
