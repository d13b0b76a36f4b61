"""Penn Treebank tokenisation of captions, as in the COCO caption evaluation.

Stanford CoreNLP 3.4.1 in one Java process for all captions of a run. Every distinct caption is
tokenised once; published scorers start the tokenizer again for every metric and threshold.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from distime.metrics.files import MetricError
from distime.metrics.java import PTB_JAR, carried_file, java_command

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
        MetricError: Java or the tokenizer is missing, or the tokenizer fails.
    """
    distinct = list(dict.fromkeys(captions))
    lines = [_LINE_ENDS.sub(" ", caption) for caption in distinct]
    tokens = {
        caption: "" for caption, line in zip(distinct, lines, strict=True) if not line.strip()
    }
    asked = [i for i, line in enumerate(lines) if line.strip()]
    if asked:
        answers = _run([lines[i] for i in asked])
        for i, answer in zip(asked, answers, strict=True):
            # Split at spaces only: a token may hold a no-break space ("1 1/2").
            words = [word for word in answer.rstrip().split(" ") if word not in PUNCTUATION]
            tokens[distinct[i]] = " ".join(words)
    return tokens


def _run(lines: list[str]) -> list[str]:
    command = [
        java_command(),
        "-Xmx512m",
        "-Dfile.encoding=UTF-8",
        "-cp",
        str(carried_file(PTB_JAR)),
    ]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # Lone surrogates can come out of JSON and have no UTF-8 form.
    text = "\n".join(lines) + "\n"
    done = subprocess.run(command, input=text.encode("utf-8", "replace"), capture_output=True)
    answers = done.stdout.decode("utf-8", "replace").split("\n")
    if done.returncode != 0 or len(answers) != len(lines) + 1:
        tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise MetricError(
            f"the PTB tokenizer gave {len(answers) - 1} lines for {len(lines)} captions "
            f"(exit code {done.returncode}): {' / '.join(tail)}"
        )
    return answers[:-1]
