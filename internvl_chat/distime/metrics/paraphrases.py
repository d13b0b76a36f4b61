"""Cut METEOR's paraphrase table down to the phrases that the captions at hand contain.

The English table holds 5.3 million entries (probability, phrase, paraphrase; one line each) and
METEOR spends ten seconds and most of a gigabyte on loading it. An entry can only match where one
caption contains the phrase and another the paraphrase, so the others can be left out without
changing any alignment; METEOR itself comes with such a filter. A run needs about one in a hundred.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Longer phrases are rare (a thousandth of a percent) and kept without a look.
_LONGEST = 7
_CHUNK = 1 << 18


def cut_table(source: Path, target: Path, captions: Iterable[str]) -> int:
    """Write to ``target`` the entries of ``source`` that can match within ``captions``.

    Args:
        source: the table, gzipped.
        target: where to write the smaller one, gzipped.
        captions: as METEOR sees them, that is normalised.

    Returns:
        The number of entries written.
    """
    phrases = word_sequences(captions)

    def can_occur(phrase: bytes) -> bool:
        return phrase in phrases or phrase.count(b" ") >= _LONGEST

    written = 0
    last, last_can_occur = b"", False
    with gzip.open(target, "wb", compresslevel=1) as out:
        for lines in _whole_entries(source):
            for i, phrase in enumerate(lines[1::3]):
                # The table is sorted: one phrase comes with all its paraphrases.
                if phrase != last:
                    last, last_can_occur = phrase, can_occur(phrase)
                if last_can_occur and can_occur(lines[3 * i + 2]):
                    out.write(b"\n".join(lines[3 * i : 3 * i + 3]) + b"\n")
                    written += 1
    return written


def word_sequences(captions: Iterable[str]) -> set[bytes]:
    """Return every sequence of up to seven consecutive words of any caption."""
    sequences: set[bytes] = set()
    for caption in captions:
        words = caption.encode("utf-8", "replace").split()
        for start, sequence in enumerate(words):
            sequences.add(sequence)
            for word in words[start + 1 : start + _LONGEST]:
                sequence = sequence + b" " + word
                sequences.add(sequence)
    return sequences


def _whole_entries(source: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a gzipped table, a multiple of three at a time."""
    unpack = zlib.decompressobj(wbits=31)
    rest = b""
    # One chunk is unpacked, which needs no interpreter lock, while the last is looked through.
    with source.open("rb") as stream, ThreadPoolExecutor(1) as pool:
        unpacking = pool.submit(unpack.decompress, stream.read(_CHUNK))
        while block := unpacking.result():
            unpacking = pool.submit(unpack.decompress, stream.read(_CHUNK))
            lines = (rest + block).split(b"\n")
            whole = (len(lines) - 1) // 3 * 3
            rest = b"\n".join(lines[whole:])
            del lines[whole:]
            yield lines
