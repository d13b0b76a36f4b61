"""The command that the README gives, as a user types it."""

import json

import pytest

from evaluate.conftest import evaluate_sh


@pytest.mark.slow
def test_one_and_two_processes_write_the_same_files(checkpoint, charades, tmp_path):
    for gpus in (1, 2):
        out = tmp_path / f"out {gpus}"
        done = evaluate_sh(
            checkpoint, "charades", *charades, "--out-dir", out, gpus=gpus, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert "mIoU" in done.stdout
    one, two = (tmp_path / f"out {gpus}" for gpus in (1, 2))
    assert (one / "results.json").read_bytes() == (two / "results.json").read_bytes()
    assert (
        json.loads((one / "score.json").read_text())["metrics"]
        == (json.loads((two / "score.json").read_text())["metrics"])
    )
