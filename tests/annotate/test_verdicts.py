"""What people decide: on disk at once, shared by processes, never lost."""

import dataclasses
import multiprocessing

import pytest

from annotate.annotated import lines
from distime.annotate.verdicts import (
    ACCEPTED,
    CORRECTED,
    REJECTED,
    Outdated,
    Verdict,
    VerdictError,
    VerdictLog,
)
from distime.files import FileError

ONE = Verdict(
    video="a.mp4", id="0-1", verdict=ACCEPTED, text="a door.", start=1, end=2.5, duration=9
)


def changed(**values):
    return dataclasses.replace(ONE, **values)


def test_the_last_decision_counts_and_survives_a_restart(tmp_path):
    log = VerdictLog(tmp_path)
    assert log.verdicts() == {}
    log.add(ONE, 0)
    log.add(changed(verdict=CORRECTED, end=3.0, reviewer="ada"), 1)
    log.add(changed(id="0-2", verdict=REJECTED), 0)
    for known in (log.verdicts(), VerdictLog(tmp_path).verdicts()):
        assert {name: one.verdict for name, one in known["a.mp4"].items()} == {
            "0-1": CORRECTED,
            "0-2": REJECTED,
        }
        assert known["a.mp4"]["0-1"].end == 3.0 and known["a.mp4"]["0-1"].number == 2
    assert len(lines(tmp_path / "reviewed.jsonl")) == 3  # nothing is erased
    assert lines(tmp_path / "reviewed.jsonl")[0]["at"]


def test_who_has_not_seen_the_last_decision_is_told(tmp_path):
    mine, yours = VerdictLog(tmp_path), VerdictLog(tmp_path)
    mine.add(changed(reviewer="ada"), 0)
    with pytest.raises(Outdated, match="ada has accepted this event meanwhile") as raised:
        yours.add(changed(verdict=REJECTED), 0)
    assert raised.value.verdict.reviewer == "ada"
    assert yours.add(changed(verdict=REJECTED), 1).number == 2
    assert mine.verdicts()["a.mp4"]["0-1"].verdict == REJECTED


def test_a_line_that_a_kill_cut_short_is_as_if_never_written(tmp_path):
    VerdictLog(tmp_path).add(ONE, 0)
    path = tmp_path / "reviewed.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    log = VerdictLog(tmp_path)
    assert len(log.verdicts()["a.mp4"]) == 1
    log.add(changed(id="0-2"), 0)
    assert [one["id"] for one in lines(path)] == ["0-1", "0-2"]


def test_a_line_that_is_no_decision_is_named(tmp_path):
    VerdictLog(tmp_path).add(ONE, 0)
    path = tmp_path / "reviewed.jsonl"
    path.write_text(path.read_text() + '{"video": "a.mp4"}\n')
    with pytest.raises(FileError, match=rf"{path}:2: the key .* is missing; mend or remove"):
        VerdictLog(tmp_path).verdicts()


@pytest.mark.parametrize(
    "values",
    [
        {"verdict": "liked"},
        {"start": 3.0},
        {"start": -1.0},
        {"end": 9.5},
        {"end": 1.0},
        {"end": float("nan")},
        {"text": "  "},
    ],
)
def test_what_no_event_can_be_is_refused(tmp_path, values):
    with pytest.raises(VerdictError):
        VerdictLog(tmp_path).add(changed(**values), 0)
    assert not (tmp_path / "reviewed.jsonl").exists()


def decide(folder, who):
    log = VerdictLog(folder)
    for number in range(40):
        log.add(changed(id=f"{who}-{number}", reviewer=who), 0)


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=decide, args=(tmp_path, who)) for who in ("a", "b", "c")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(VerdictLog(tmp_path).verdicts()["a.mp4"]) == 120
    assert len(lines(tmp_path / "reviewed.jsonl")) == 120
