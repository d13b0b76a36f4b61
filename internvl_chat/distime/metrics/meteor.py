"""METEOR 1.5: alignments from its Java program, scores in Python.

``SCORE ||| reference ||| hypothesis`` makes the Java program align two captions and answer with
23 counts. Everything after that is arithmetic (``scores``), including the score of a group of
pairs, which METEOR defines as the score of the summed counts and not as a mean.

Four things make it fast. Its paraphrase table is cut down to the captions at hand first
(paraphrases.py), which leaves half a second of its ten-second start. Each caption is normalised
once and not for each of its pairs, and each distinct pair is aligned once. And requests are
written by one thread and answers read by another, so that no request waits for the answer of
another, neither side can block the other, and Python has other work done meanwhile.

Origin: Denkowski and Lavie, WMT 2014; the jar and its English table come with pycocoevalcap.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from distime.files import FileError
from distime.metrics.java import (
    METEOR_JAR,
    PARAPHRASES,
    carried_file,
    convert_lines,
    java_command,
)
from distime.metrics.paraphrases import cut_table

Pair = tuple[str, str]
"""(hypothesis, reference), tokenised."""

FIELDS = 23
HYP_LENGTH, REF_LENGTH, HYP_FUNCTION, REF_FUNCTION = range(4)
CHUNKS, HYP_MATCHES, REF_MATCHES = 20, 21, 22

# METEOR's English parameters: weight of each matching stage (exact, stem, synonym, paraphrase),
# of content against function words, of precision against recall, and the fragmentation penalty.
STAGE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75

# Measured: 210 MB resident with a cut table; the full one needs more than a gigabyte.
_MEMORY = "768m"

NONSENSE = "qxzvkwjqpfzxgh"
"""Stands for the random references that published scorers give unmatched captions."""


def scores(statistics: np.ndarray) -> np.ndarray:
    """Return the METEOR score in [0, 1] of each row of counts.

    Args:
        statistics: ``(n, 23)`` counts of pairs, or sums of them for groups.
    """
    hyp_length, ref_length, hyp_function, ref_function = statistics[:, :4].T
    stages = statistics[:, 4:20].reshape(-1, 4, 4)  # per stage: hyp/ref content, hyp/ref function
    matched = DELTA * stages[:, :, :2] + (1 - DELTA) * stages[:, :, 2:]
    hyp_matched, ref_matched = np.einsum("nsk,s->kn", matched, np.array(STAGE_WEIGHTS))
    precision = _ratio(
        hyp_matched, DELTA * (hyp_length - hyp_function) + (1 - DELTA) * hyp_function
    )
    recall = _ratio(ref_matched, DELTA * (ref_length - ref_function) + (1 - DELTA) * ref_function)
    weighted = (1 - ALPHA) * recall + ALPHA * precision
    mean = _ratio(precision * recall, weighted)
    fragmentation = _ratio(
        statistics[:, CHUNKS], (statistics[:, HYP_MATCHES] + statistics[:, REF_MATCHES]) / 2
    )
    return mean * (1 - GAMMA * fragmentation**BETA)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


class Aligner:
    """A METEOR process for a given set of captions, and the counts of the pairs aligned so far.

    Use it as a context manager; leaving it ends the process.

    Args:
        captions: every text that will be aligned, tokenised.

    Raises:
        FileError: Java or METEOR is missing. Later calls raise it where the process dies.
    """

    def __init__(self, captions: Iterable[str]) -> None:
        self._normal = normalize({NONSENSE, *captions})
        self._row: dict[Pair, int] = {}
        self._counts = np.zeros((0, FIELDS))
        self._lengths: dict[str, tuple[float, float]] = {}
        table = carried_file(PARAPHRASES)
        command = [*java_command(_MEMORY), "-jar", str(carried_file(METEOR_JAR))]
        with contextlib.ExitStack() as stack:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="distime-meteor-"))
            )
            cut_table(table, folder / table.name, self._normal.values())
            # A file, not a pipe: nobody reads what Java complains about unless it dies.
            self._errors = stack.enter_context((folder / "errors.txt").open("w+b"))
            self._process = subprocess.Popen(
                [*command, "-", "-", "-stdio", "-l", "en", "-a", str(folder / table.name)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
            self._cleanup = stack.pop_all()
        self._pool = ThreadPoolExecutor(2)  # One thread writes requests, one reads answers.
        self._reading: Future[None] | None = None

    def __enter__(self) -> Aligner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Calling it again does nothing."""
        self._kill()
        self._pool.shutdown()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # Flushing into a dead process.
                stream.close()
        self._cleanup.close()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def alignments(self) -> int:
        """Number of pairs that Java has aligned."""
        self._wait()
        return len(self._counts)

    def request(self, pairs: Iterable[Pair]) -> None:
        """Begin to align every pair that is not yet known, and return at once.

        The answers are read in the background; whatever needs them waits for them.

        Raises:
            FileError: the process died during an earlier request.
            ValueError: a text was not among the captions of this aligner.
        """
        self._wait()
        asked = [pair for pair in dict.fromkeys(pairs) if pair not in self._row]
        strange = {text for pair in asked for text in pair} - self._normal.keys()
        if strange:
            raise ValueError(f"{min(strange)!r} is not among the captions of this aligner")
        if asked:
            self._pool.submit(self._write, asked)
            self._reading = self._pool.submit(self._read, asked)

    def _wait(self) -> None:
        if self._reading is not None:
            reading, self._reading = self._reading, None
            reading.result()

    def _write(self, pairs: Sequence[Pair]) -> None:
        # A process that died is reported by the reader, which sees the end of its output.
        with contextlib.suppress(OSError, ValueError):
            for start in range(0, len(pairs), 256):
                lines = (
                    f"SCORE ||| {self._normal[reference]} ||| {self._normal[hypothesis]}\n"
                    for hypothesis, reference in pairs[start : start + 256]
                )
                self._process.stdin.write("".join(lines).encode("utf-8", "replace"))
                self._process.stdin.flush()

    def _read(self, pairs: Sequence[Pair]) -> None:
        lines = []
        try:
            for pair in pairs:
                line = self._process.stdout.readline()
                if not _COUNTS.fullmatch(line):
                    raise FileError(self._complaint(pair, line))
                lines.append(line)
        except BaseException:
            self._kill()  # Which also frees a writer that waits for room in the pipe.
            raise
        counts = np.array(b"".join(lines).split(), dtype=np.float64).reshape(-1, FIELDS)
        # METEOR's rule for a perfect pair, also inside a group: it has no chunk.
        perfect = (counts[:, HYP_MATCHES] == counts[:, HYP_LENGTH]) & (
            counts[:, REF_MATCHES] == counts[:, REF_LENGTH]
        )
        counts[perfect & (counts[:, CHUNKS] == 1), CHUNKS] = 0.0
        first = len(self._counts)
        self._counts = np.vstack([self._counts, counts])
        self._row.update((pair, first + i) for i, pair in enumerate(pairs))
        for pair, row in zip(pairs, counts[:, :4].tolist(), strict=True):
            self._lengths[pair[0]] = row[HYP_LENGTH], row[HYP_FUNCTION]
            self._lengths[pair[1]] = row[REF_LENGTH], row[REF_FUNCTION]

    def _complaint(self, pair: Pair, line: bytes) -> str:
        if not line:
            self._process.wait()  # The end of its output: it has exited or is about to.
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-3:]
        return (
            f"METEOR stopped at hypothesis {pair[0]!r}, reference {pair[1]!r} "
            f"(answer {line.decode('utf-8', 'replace').strip()!r}, exit code "
            f"{self._process.returncode}): {' / '.join(said) or 'no message'}; it needs about "
            "half a gigabyte of memory, and `java` must run (try `java -version`)."
        )

    def statistics(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the ``(n, 23)`` counts of pairs; the unknown ones are aligned first."""
        self.request(pairs)
        self._wait()
        return self._counts[np.array([self._row[pair] for pair in pairs], dtype=np.intp)]

    def unmatched(self, hypotheses: Sequence[str]) -> np.ndarray:
        """Return the counts of hypotheses against a reference of one nonsense word.

        Nothing can match, so only METEOR's own word counts of the hypothesis are needed; they
        are known from any pair that it was part of.
        """
        self._wait()
        self.request((text, NONSENSE) for text in hypotheses if text not in self._lengths)
        self._wait()
        rows = np.zeros((len(hypotheses), FIELDS))
        for row, text in zip(rows, hypotheses, strict=True):
            row[HYP_LENGTH], row[HYP_FUNCTION] = self._lengths[text]
            row[REF_LENGTH] = 1.0
        return rows


def normalize(captions: Iterable[str]) -> dict[str, str]:
    """Return caption -> its text as METEOR's option ``-norm`` makes it.

    Lower case, with punctuation set apart. METEOR's own normaliser is asked only about captions
    with more than ASCII letters and digits, because it leaves the others as they are.

    Raises:
        FileError: Java or METEOR is missing, or the normaliser fails.
    """
    # `|||` separates the fields of a request. The second replacement is the published one: a
    # single pass, so that three spaces become two.
    normal = {
        caption: re.sub("[\r\n]", " ", caption).replace("|||", "").replace("  ", " ").lower()
        for caption in captions
    }
    asked = [caption for caption, text in normal.items() if not _PLAIN.fullmatch(text)]
    command = [*java_command("256m"), "-cp", str(carried_file(METEOR_JAR))]
    command += ["edu.cmu.meteor.util.Normalizer", "en", "true"]
    lines = convert_lines("METEOR's normaliser", command, [normal[caption] for caption in asked])
    normal.update(zip(asked, lines, strict=True))
    return normal


_COUNTS = re.compile(rb"[0-9.]+(?: [0-9.]+){22}\s*")
_PLAIN = re.compile("[0-9a-z]*(?: [0-9a-z]+)*")
