"""Penn Treebank tokenisation of captions, as in the COCO caption evaluation.

Stanford CoreNLP 3.4.1 in one Java process for all captions of a run. Every distinct caption is
tokenised once; published scorers start the tokenizer again for every metric and threshold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from distime.metrics.java import PTB_JAR, carried_file, convert_lines, java_command

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"]
    + [".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""Tokens that are dropped. Brackets come out in lower case (``-lrb-``), so they stay, as in the
published scorers."""

# Everything the tokenizer takes for the end of a line; each caption must stay on one.
_LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def tokenize(captions: Iterable[str]) -> dict[str, str]:
    """Return caption -> its tokens joined by spaces, for every distinct caption.

    Raises:
        FileError: Java or the tokenizer is missing, or the tokenizer fails.
    """
    lines = {caption: _LINE_ENDS.sub(" ", caption) for caption in captions}
    tokens = dict.fromkeys(lines, "")
    asked = {caption: line for caption, line in lines.items() if line.strip()}
    command = [*java_command("512m"), "-cp", str(carried_file(PTB_JAR))]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    answers = convert_lines("the PTB tokenizer", command, list(asked.values()))
    for caption, answer in zip(asked, answers, strict=True):
        # Split at spaces only: a token may hold a no-break space ("1 1/2").
        words = [word for word in answer.rstrip().split(" ") if word not in PUNCTUATION]
        tokens[caption] = " ".join(words)
    return tokens
