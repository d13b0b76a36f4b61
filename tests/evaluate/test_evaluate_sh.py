"""The command that the README gives, as a user types it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distime.evaluate import Settings, run
from evaluate.conftest import INTERNVL_CHAT, evaluate_sh, flags, one_thread
from evaluate.tiny_benchmarks import settings_of


@pytest.fixture
def charades(checkpoint, videos, tmp_path) -> dict:
    settings = settings_of("charades", tmp_path / "annotations", *videos)
    return {"checkpoint": checkpoint, "out_dir": tmp_path / "results of it"} | settings


@pytest.mark.slow
def test_two_processes_print_and_write_the_metric(charades, tmp_path):
    done = evaluate_sh(charades["checkpoint"], "charades", *flags(charades), gpus=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    assert done.stdout.count("wrote ") == 1  # one process speaks
    assert (charades["out_dir"] / "score.json").is_file()


@pytest.mark.slow
def test_killed_runs_continue(charades, tmp_path):
    """Two processes are killed while they work; one goes on."""
    charades |= {"max_new_tokens": 200}
    whole = run(Settings(**charades | {"out_dir": tmp_path / "whole"}))
    killed = subprocess.Popen(
        ["sh", INTERNVL_CHAT / "evaluate.sh", charades["checkpoint"], "charades", *flags(charades)],
        env=one_thread(GPUS="2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answered_videos(charades["out_dir"]) > 0, killed)
    finally:
        for pid in [killed.pid, *descendants(killed.pid)]:
            os.kill(pid, signal.SIGKILL)
        killed.wait()
    known = answered_videos(charades["out_dir"])
    assert not (charades["out_dir"] / "results.json").exists()

    result = run(Settings(**charades))
    assert result.run["timing"]["videos"] == result.run["counts"]["videos"] - known
    assert result.path.read_bytes() == whole.path.read_bytes()


def answered_videos(folder: Path) -> int:
    texts = [path.read_text() for path in folder.glob("answers/*.jsonl")]
    return sum(max(0, text.count("\n") - 1) for text in texts)


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


@pytest.fixture
def recorder(tmp_path) -> Path:
    """A stand-in for Python that prints how it was called."""
    path = tmp_path / "a python"
    path.write_text('#!/bin/sh\necho "path=$PYTHONPATH"\nfor word in "$@"; do echo "$word"; done\n')
    path.chmod(0o755)
    return path


def test_words_reach_python_as_they_were_given(recorder, tmp_path):
    done = evaluate_sh(
        "my checkpoint", "nextgqa", "2", "--out-dir", "an out dir",
        cwd=tmp_path, PYTHON=str(recorder), PYTHONPATH="mine",
    )  # fmt: skip
    path, *words = done.stdout.splitlines()
    assert path == f"path={INTERNVL_CHAT}:mine"
    expected = ["-m", "distime.cli", "evaluate", "nextgqa", "2", "--out-dir", "an out dir"]
    assert words == [*expected, "--checkpoint", "my checkpoint"]


def test_several_machines(recorder):
    where = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
    words = evaluate_sh("c", "anet", gpus=8, PYTHON=str(recorder), **where).stdout.split("\n")
    for flag, value in (("--nnodes", "2"), ("--node_rank", "1"), ("--nproc_per_node", "8")):
        assert words[words.index(flag) + 1] == value
    assert "--standalone" not in words
    del where["NODE_RANK"]
    refused = evaluate_sh("c", "anet", gpus=8, PYTHON=str(recorder), **where)
    assert refused.returncode != 0 and "NODE_RANK" in refused.stderr


def test_processes_of_one_machine_need_no_fixed_port(recorder):
    words = evaluate_sh("c", "anet", gpus=2, PYTHON=str(recorder)).stdout.split("\n")
    assert "--standalone" in words and "--master_port" not in words


def test_failures_reach_the_exit_code(tmp_path):
    assert evaluate_sh("c").returncode == 2
    assert evaluate_sh("c", "anet", gpus="many").returncode == 2
    assert evaluate_sh("c", "anet", PYTHON="false").returncode == 1
    missing = evaluate_sh(tmp_path / "no checkpoint", "charades")
    assert missing.returncode == 1
    assert "--checkpoint" in missing.stderr and "Traceback" not in missing.stderr


def test_the_package_need_not_be_installed(tmp_path):
    """Without the site's start-up files, an editable installation is not seen."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    packages = os.pathsep.join(path for path in sys.path if path.endswith("-packages"))
    alone = subprocess.run(
        [python, "-c", "import distime"], env=one_thread(PYTHONPATH=packages), cwd=tmp_path
    )
    if alone.returncode == 0:
        pytest.skip("distime is installed as a copy, which is always seen")
    done = evaluate_sh(
        "c", "charades", "--help", PYTHON=str(python), PYTHONPATH=packages, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "--max-batch-tokens" in done.stdout


def test_help_says_how(recorder):
    done = evaluate_sh("--help", PYTHON=sys.executable)
    assert done.returncode == 0
    assert "CHECKPOINT BENCHMARK [STAGE]" in done.stdout
