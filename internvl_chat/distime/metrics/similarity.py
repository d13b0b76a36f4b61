"""Similarity of sentences, by an encoder that the caller brings.

E.T. Bench takes the option that is most similar to an answer without a letter, and compares
captions by their meaning (SentSim). An encoder turns texts into unit vectors; the one in
`distime.processing.sentences` needs torch, this file does not.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence

import numpy as np

from distime.metrics.dense_captioning import CaptionedVideo

Encoder = Callable[[Sequence[str]], np.ndarray]
"""Texts -> ``(texts, d)`` vectors of length 1."""

NONSENSE = 256
"""How many words without a meaning stand for all."""


def most_similar(text: str, options: Sequence[str], encoder: Encoder) -> int:
    """Return the place of the option that is most similar to a text, the first of equal ones."""
    vectors = encoder([text, *options])
    return int(np.argmax(vectors[1:] @ vectors[0]))


def caption_similarity(videos: Sequence[CaptionedVideo], encoder: Encoder) -> float:
    """Return the mean cosine of caption pairs in [-1, 1], means over videos and thresholds.

    The published scorer compares a predicted caption without a partner with a random word, anew
    at each call: no two of its runs agree. Here it gets its mean similarity with `NONSENSE` such
    words, which is what those runs scatter around.
    """
    texts = [text for v in videos for text in (*v.predicted.captions, *v.annotated.captions)]
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors = encoder(list(place))
    alone = vectors @ encoder(nonsense_words()).mean(axis=0)
    means = []
    for video in videos:
        for t in video.thresholds:
            pairs, unmatched = video.matches[t]
            cosines = [float(vectors[place[a]] @ vectors[place[b]]) for a, b in pairs]
            cosines += [float(alone[place[text]]) for text in unmatched]
            means.append(sum(cosines) / len(cosines) if cosines else 0.0)
    return sum(means) / len(means)


def nonsense_words() -> list[str]:
    """`NONSENSE` words of 10 to 20 random letters, always the same."""
    source = random.Random(0)
    lengths = [source.randint(10, 20) for _ in range(NONSENSE)]
    return ["".join(source.choices(string.ascii_lowercase, k=length)) for length in lengths]
