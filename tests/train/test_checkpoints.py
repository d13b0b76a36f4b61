"""Killed runs go on as if nothing had happened, wherever the kill falls."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distime import DisTimeForConditionalGeneration
from distime.data.dataset import TrainingData
from distime.train import checkpoints
from distime.train.checkpoints import (
    PARTIAL,
    RECORD,
    complete_checkpoints,
    rotate,
)
from distime.train.trainer import DisTimeTrainer
from tiny_runs import LAUNCH, command_line, parameters, train

RUN = ("--per_device_train_batch_size", 2, "--num_train_epochs", 2)  # 8 steps of 2 samples
SAVING = ("--save_strategy", "steps", "--save_steps", 2, "--resume", "auto")
LORA = (
    "--use_llm_lora", 2, "--freeze_llm", True, "--freeze_backbone", True, "--freeze_mlp", True,
    "--train_embeddings", "new_rows",
)  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL in this process: nothing catches it and nothing is tidied up."""


def losses(folder: Path, step: int = 8) -> dict[int, float]:
    """Loss by step, of a run until a checkpoint."""
    state = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


def assert_same_weights(folder, expected, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    wanted = parameters(expected)
    for name, parameter in parameters(folder).items():
        torch.testing.assert_close(parameter, wanted[name], msg=name, **tolerance)


@pytest.fixture(scope="module")
def whole(workspace, tmp_path_factory):
    """A run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    train(workspace, folder, *RUN, *SAVING)
    return folder


def test_a_checkpoint_holds_all_that_a_run_is_made_of(whole):
    assert list(complete_checkpoints(whole)) == [2, 4, 6, 8]
    files = {file.name for file in (whole / "checkpoint-4").iterdir()}
    assert files >= {
        "model.safetensors", "config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
        "trainer_state.json", RECORD,
    }  # fmt: skip
    assert not (whole / PARTIAL).exists()
    DisTimeForConditionalGeneration.from_pretrained(whole / "checkpoint-4")


def test_sigkill_in_mid_run_and_in_mid_save(workspace, tmp_path, whole):
    """The process kills itself while it saves step 6; the resumed one is killed from outside."""
    suicide = (
        "import os, signal, sys; from distime.train import finetune, trainer\n"
        "save = trainer.DisTimeTrainer._save_rng_state\n"
        "def die(self, folder):\n"
        "    if self.state.global_step == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(self, folder)\n"
        "trainer.DisTimeTrainer._save_rng_state = die\n"
        "finetune.main(sys.argv[1:])"
    )
    flags = command_line(workspace, tmp_path, *RUN, *SAVING)
    died = subprocess.run([sys.executable, "-c", suicide, *flags], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert list(complete_checkpoints(tmp_path)) == [2, 4]
    assert (tmp_path / PARTIAL / "checkpoint-6" / "model.safetensors").is_file()

    # Every log line waits for an answer, so that the kill falls between steps 5 and 6.
    slow = (
        "import sys; from distime.train import finetune, trainer\n"
        "log = trainer.DisTimeTrainer.log\n"
        "def wait(self, logs, *args, **kwargs):\n"
        "    log(self, logs, *args, **kwargs)\n"
        "    print('step', self.state.global_step, flush=True); sys.stdin.readline()\n"
        "trainer.DisTimeTrainer.log = wait\n"
        "finetune.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.strip() == "step 5":
            break
        process.stdin.write("go on\n")
        process.stdin.flush()
    process.kill()
    _, errors = process.communicate(timeout=60)
    assert "half-written: checkpoint-6" in errors and "checkpoint-4" in errors
    assert list(complete_checkpoints(tmp_path)) == [2, 4]

    train(workspace, tmp_path, *RUN, *SAVING)
    assert losses(tmp_path) == losses(whole)
    assert_same_weights(tmp_path, whole)


@pytest.mark.parametrize(
    ("owner", "method", "flags"),
    [
        (DisTimeTrainer, "_save", ()),
        (DisTimeTrainer, "_save_optimizer_and_scheduler", LORA),
        (checkpoints.RunRecord, "write", ()),
        (checkpoints, "_flush", ()),
        (shutil, "rmtree", ()),
    ],
)
def test_a_kill_at_any_moment_loses_no_more_than_save_steps(
    workspace, tmp_path, monkeypatch, whole, owner, method, flags
):
    """In mid-save of step 4, or in the rotation after it; with LoRA also its dropout goes on."""
    settings = (*RUN, *flags, *SAVING, "--save_total_limit", 1)
    expected = whole
    if flags:
        expected = tmp_path / "whole"
        train(workspace, expected, *settings)
    out = tmp_path / "out"
    original = getattr(owner, method)

    def die(*args, **kwargs):
        if complete_checkpoints(out):  # step 4 is being saved
            raise Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(owner, method, die)
        with pytest.raises(Killed):
            train(workspace, out, *settings)
    is_rotating = method == "rmtree"
    assert list(complete_checkpoints(out)) == ([4] if is_rotating else [2])
    assert (out / PARTIAL).is_dir()
    train(workspace, out, *settings)
    assert losses(out) == losses(expected)
    assert list(complete_checkpoints(out)) == [8] and not (out / PARTIAL).exists()
    assert_same_weights(out, expected)


@pytest.mark.smoke
def test_no_sample_is_lost_or_repeated(workspace, tmp_path, monkeypatch):
    taken, get = [], TrainingData.__getitem__
    monkeypatch.setattr(
        TrainingData, "__getitem__", lambda self, key: taken.append(key) or get(self, key)
    )
    train(workspace, tmp_path, *RUN, *SAVING)
    once = list(taken)
    assert sorted(once) == sorted((group, epoch) for group in range(8) for epoch in range(2))
    for step in (6, 8):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    taken.clear()
    train(workspace, tmp_path, *RUN, *SAVING)
    assert taken == once[8:]  # four steps of two samples


@pytest.mark.slow
def test_another_number_of_processes_goes_on(workspace, tmp_path, whole):
    """Steps 1 and 2 in one process, 3 and 4 in two, the others in one again."""
    shutil.copytree(whole / "checkpoint-2", tmp_path / "checkpoint-2")
    flags = command_line(workspace, tmp_path, "--num_train_epochs", 2, *SAVING)
    environment = os.environ | {
        "GPUS": "2", "BATCH_SIZE": "2", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    subprocess.run(["sh", LAUNCH, *flags], check=True, env=environment, cwd=tmp_path)
    tolerance = {"rel": 1e-4, "abs": 1e-5}
    assert losses(tmp_path) == pytest.approx(losses(whole), **tolerance)
    assert (tmp_path / "checkpoint-4" / "rng_state_1.pth").is_file()
    for step in (6, 8):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    train(workspace, tmp_path, *RUN, *SAVING)
    assert losses(tmp_path) == pytest.approx(losses(whole), **tolerance)
    assert_same_weights(tmp_path, whole, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--per_device_train_batch_size", 4), "x processes was 2, is 4"),
        (("--seed", 7), "other samples .* --seed was 42, is 7"),
        (("--share_video_prefix", True), "--share_video_prefix was False, is True"),
        (("--freeze_mlp", True), "other trained parameters .*--freeze_mlp was False, is True"),
        (("--resume", "none"), "holds checkpoint-8 of an earlier run: give --resume auto"),
    ],
)
def test_a_run_does_not_go_on_from_another(workspace, tmp_path, whole, caplog, flags, message):
    shutil.copytree(whole / "checkpoint-8", tmp_path / "checkpoint-8")
    train(workspace, tmp_path, *RUN, *SAVING, *flags, expect=2)
    assert re.search(message, caplog.text)


def test_what_leaves_the_samples_as_they_were_may_change(workspace, tmp_path, whole, caplog):
    shutil.copytree(whole / "checkpoint-6", tmp_path / "checkpoint-6")
    longer = ("--num_train_epochs", 2.5, "--per_device_train_batch_size", 1,
              "--gradient_accumulation_steps", 2)  # fmt: skip
    train(workspace, tmp_path, *RUN, *SAVING, *longer)
    assert "--num_train_epochs was 2.0, is 2.5" in caplog.text
    assert max(complete_checkpoints(tmp_path)) == 10


def test_an_incomplete_checkpoint_is_named_and_left_alone(tmp_path, caplog):
    (tmp_path / "checkpoint-4").mkdir()
    assert complete_checkpoints(tmp_path) == {}
    assert "checkpoint-4 is left alone" in caplog.text


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    def make(*steps):
        for step in steps:
            (tmp_path / f"checkpoint-{step}").mkdir()
            (tmp_path / f"checkpoint-{step}" / RECORD).touch()

    make(2, 4, 10)
    rotate(tmp_path, None)
    assert list(complete_checkpoints(tmp_path)) == [2, 4, 10]
    rotate(tmp_path, 2)
    assert list(complete_checkpoints(tmp_path)) == [4, 10]
    make(12)
    rotate(tmp_path, 1, best=str(tmp_path / "checkpoint-4"))
    assert list(complete_checkpoints(tmp_path)) == [4, 12]
