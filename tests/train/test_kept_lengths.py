"""Training by length counts the lengths in its first run and reads them in the second."""

from __future__ import annotations

from distime.data.dataset import TrainingData
from tiny_runs import train


def test_the_second_run_reads_the_lengths_of_the_first(workspace, tmp_path, monkeypatch):
    flags = ("--group_by_length", True, "--max_steps", 1, "--per_device_train_batch_size", 4)
    train(workspace, tmp_path / "first", *flags)
    assert len(list(workspace.glob("train.jsonl.lengths-*.npy"))) == 1
    monkeypatch.setattr(TrainingData, "lengths", None)  # would fail if it were called
    train(workspace, tmp_path / "second", *flags)
