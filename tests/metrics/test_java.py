"""The PTB tokenizer and METEOR as they really run, and what happens where they do not."""

from __future__ import annotations

import gzip
import itertools
import stat
import subprocess
from pathlib import Path

import pytest

from distime.files import FileError
from distime.metrics import meteor, ptb
from distime.metrics.java import METEOR_JAR, PARAPHRASES, carried_file, java_command
from distime.metrics.meteor import NONSENSE, Aligner, normalize

CAPTIONS = [
    "a man is running",
    "a man runs",
    "the dog barks loudly at the mailman",
    "a dog is barking",
    "he 's cutting a half-open 1/2 pie",
    "mañana -- día",
    "about a hundred people applauded at all times",
    "approximately one hundred people always applauded",
    "",
]


@pytest.mark.java
def test_tokens_by_hand():
    expected = {
        "A man, running.": "a man running",
        "Don't you cannot.": "do n't you can not",
        "The man's (red) hat!": "the man 's -lrb- red -rrb- hat",
        "two\nlines\u2028three\x85four": "two lines three four",
        "1/2 cup of a,b": "1/2 cup of a b",
        "": "",
        " \n": "",
        "...": "",
        "café ñandú": "café ñandú",
    }
    assert ptb.tokenize([*expected, *expected]) == expected


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """The first 400 thousand entries of METEOR's paraphrases (up to "and"): seconds to load."""
    path = tmp_path_factory.mktemp("meteor") / "paraphrase-en.gz"
    with (
        gzip.open(carried_file(PARAPHRASES)) as whole,
        gzip.open(path, "wb", compresslevel=1) as part,
    ):
        part.writelines(itertools.islice(whole, 3 * 400_000))
    return path


@pytest.fixture(scope="module")
def aligner(table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            meteor,
            "carried_file",
            lambda name: table if name == PARAPHRASES else carried_file(name),
        )
        running = Aligner(CAPTIONS)
    with running:
        yield running


@pytest.mark.java
def test_counts_and_scores_equal_those_of_the_java_program(aligner, table):
    """Cutting the table, normalising beforehand and scoring in Python change nothing."""
    pairs = [(a, b) for a in CAPTIONS for b in CAPTIONS]
    ours = aligner.statistics(pairs)
    perfect = (ours[:, 20] == 0) & (ours[:, 21] > 0)
    expected = ours.copy()
    expected[perfect, 20] = 1  # Java applies its rule for perfect pairs when it evaluates.
    requests = [f"SCORE ||| {reference} ||| {hypothesis}" for hypothesis, reference in pairs]
    lines = [" ".join(f"{number:.0f}" for number in row) for row in expected]
    requests.append(f"EVAL ||| {' ||| '.join(lines)}")
    done = subprocess.run(
        [*java_command("2g"), "-jar", str(carried_file(METEOR_JAR))]
        + ["-", "-", "-stdio", "-l", "en", "-norm", "-a", str(table)],
        input="".join(f"{request}\n" for request in requests).encode(),
        capture_output=True,
        check=True,
    )
    answers = done.stdout.decode().splitlines()
    rows = [list(map(float, line.split())) for line in answers[: len(pairs)]]
    assert expected.tolist() == rows
    assert perfect.any() and not perfect.all()
    assert ours[:, 16:20].any()  # Some pair needed a paraphrase.
    *each, together = map(float, answers[len(pairs) :])
    assert meteor.scores(ours).tolist() == pytest.approx(each, abs=1e-12)
    assert meteor.scores(ours.sum(axis=0, keepdims=True))[0] == pytest.approx(together, abs=1e-12)


@pytest.mark.java
def test_perfect_and_unmatched(aligner):
    text = CAPTIONS[2]
    assert meteor.scores(aligner.statistics([(text, text)]))[0] == 1.0
    unmatched = aligner.unmatched([text, CAPTIONS[5]])
    assert (
        unmatched.tolist()
        == aligner.statistics([(text, NONSENSE), (CAPTIONS[5], NONSENSE)]).tolist()
    )
    assert meteor.scores(unmatched).tolist() == [0, 0]


@pytest.mark.java
def test_each_pair_is_aligned_once(aligner):
    aligner.statistics([(CAPTIONS[0], CAPTIONS[1])])
    before = aligner.alignments
    aligner.request([(CAPTIONS[0], CAPTIONS[1])] * 3)
    assert aligner.alignments == before


@pytest.mark.java
def test_texts_must_be_announced(aligner):
    with pytest.raises(ValueError, match="'a cat' is not among the captions"):
        aligner.request([("a cat", CAPTIONS[0])])


@pytest.mark.java
def test_normalising():
    expected = {"A b": "a b", "he 's": "he ' s", "a ||| b": "a b", "x\ny": "x y", "": ""}
    assert normalize(expected) == expected


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Put a `java` on the PATH that runs a shell script, and skip the paraphrase table."""

    def install(script: str) -> None:
        path = tmp_path / "java"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setattr(meteor, "cut_table", lambda *args: 0)

    return install


def test_java_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileError, match="no `java` on the PATH; install"):
        ptb.tokenize(["a"])


def test_tokenizer_dies(fake_java):
    fake_java("echo 'Could not reserve enough space' >&2; exit 1")
    with pytest.raises(FileError, match=r"0 lines for 1 captions \(exit code 1\): Could not"):
        ptb.tokenize(["a"])


def test_tokenizer_loses_a_line(fake_java):
    fake_java("echo a; cat > /dev/null")
    with pytest.raises(FileError, match="1 lines for 2 captions"):
        ptb.tokenize(["a", "b"])


def test_meteor_dies_while_requests_wait(fake_java):
    """Far more requests than a pipe holds: neither side may hang."""
    fake_java("read line; echo 1 1 0 0" + " 0" * 19 + "; echo 'OutOfMemoryError' >&2; exit 3")
    captions = [f"caption {'w' * 200} {i}" for i in range(2000)]
    with Aligner(captions) as running:
        running.request(zip(captions, captions[1:], strict=False))
        with pytest.raises(FileError, match=r"exit code 3\): OutOfMemoryError"):
            running.statistics([(captions[0], captions[1])])


def test_meteor_answers_nonsense(fake_java):
    fake_java("while read line; do echo what; done")
    with Aligner(["a", "b"]) as running, pytest.raises(FileError, match="answer 'what'"):
        running.statistics([("a", "b")])


def test_leaving_early_ends_the_process(fake_java):
    fake_java("exec sleep 60")
    with Aligner(["a", "b"]) as running:
        running.request([("a", "b")])
        process = running._process
    assert process.returncode is not None
    running.close()
