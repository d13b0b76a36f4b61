"""The SLURM example, with stand-ins for SLURM's programs and for Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distime.train import finetune

ROOT = Path(finetune.__file__).resolve().parents[3]
SCRIPT = ROOT / "internvl_chat/shell/distime/slurm_multinode.sh"

PROGRAMS = {
    "scontrol": 'test "$*" = "show hostnames node[7-8]" && printf "node7\\nnode8\\n"',
    # Runs a task on each machine, as srun does, without the options before the command.
    "srun": (
        'while [ "$1" != sh ]; do shift; done\n'
        'for id in 0 1; do SLURM_NODEID=$id SLURM_GPUS_ON_NODE=4 "$@" || exit $?; done'
    ),
    # Has no GPU, and notes what it is asked to start.
    "python": (
        'case "$2" in *is_available*) exit 1 ;; *device_count*) echo 0; exit ;; esac\n'
        f'exec "{sys.executable}" -c '
        '\'import json, sys; print(json.dumps(sys.argv[1:]))\' "$@" >> "$CALLS"'
    ),
}


@pytest.fixture
def submit(tmp_path):
    """Run the script as `sbatch` would: a copy of it, in a job of two machines."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    copy = shutil.copy(SCRIPT, tmp_path / "slurm_script")

    def run(*flags, **environment):
        variables = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHON": "python",
            "CALLS": str(tmp_path / "calls"), "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "1234567", "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[7-8]",
        } | environment  # fmt: skip
        command = ["sh", copy, *flags]
        return subprocess.run(command, env=variables, capture_output=True, text=True)

    run.calls = tmp_path / "calls"
    return run


def test_every_machine_starts_its_part_of_the_recipe(submit):
    done = submit("--learning_rate", "1e-5", "--run_name", "two words")
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in submit.calls.read_text().splitlines()]
    for rank, call in enumerate(calls):
        flags = dict(zip(call, call[1:], strict=False))
        assert flags["torch.distributed.run"] == "--nnodes"
        assert (flags["--nnodes"], flags["--node_rank"]) == ("2", str(rank))
        assert (flags["--master_addr"], flags["--master_port"]) == ("node7", "24567")
        assert flags["--nproc_per_node"] == "4"
        # The recipe's batch of 128 over 2 machines of 4 processes.
        assert flags["--gradient_accumulation_steps"] == "16"
        assert flags["--weight_decay"] == "0.01"
        assert call[-4:] == ["--learning_rate", "1e-5", "--run_name", "two words"]
    assert len(calls) == 2


def test_another_recipe_and_batch(submit):
    recipe = "internvl2_5_8b_dynamic_res_merged_stage_finetune_lora.sh"
    assert submit(RECIPE=recipe, BATCH_SIZE="64", MASTER_PORT="1000").returncode == 0
    call = json.loads(submit.calls.read_text().splitlines()[0])
    flags = dict(zip(call, call[1:], strict=False))
    assert flags["--weight_decay"] == "0.05"
    assert (flags["--gradient_accumulation_steps"], flags["--master_port"]) == ("8", "1000")


def test_wrong_use_is_refused(submit, tmp_path):
    assert "BATCH_SIZE=12 is not a multiple of GPUS x NNODES" in submit(BATCH_SIZE="12").stderr
    done = submit(SLURM_SUBMIT_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "submit from the repository's root" in done.stderr
