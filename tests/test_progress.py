"""Long work says how far it is, on a terminal and in a log."""

import sys

from distime import progress


def run(capsys):
    for _ in progress.progress(range(100), desc="counting", unit="item"):
        pass
    return capsys.readouterr().err


def test_a_log_gets_lines_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    lines = run(capsys).replace("\r", "").strip().splitlines()
    assert any(line.startswith("counting: 50 of 100 items") for line in lines)


def test_short_work_says_nothing_in_a_log(capsys):
    assert run(capsys).strip() == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "100/100" in run(capsys)
