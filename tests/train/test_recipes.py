"""The published recipes: their numbers, and that the documented commands run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "internvl_chat/shell/distime/internvl2_5_{}_dynamic_res_merged_stage_finetune_lora.sh"

# Stands in for Python on a machine with GPUs: says how many there are, and what it would run.
PYTHON_WITH_GPUS = """#!/bin/sh
case "$1 $2" in
  "-c "*device_count*) echo 8 ;;
  "-c "*is_available*) ;;
  *) printf '%s\\n' "$@" ;;
esac
"""

PUBLISHED = {
    "conv_style": "internvl2_5", "dec_reg": "32", "enc_sigma": "1.0", "layer_num": "3",
    "freeze_llm": "True", "freeze_backbone": "True", "freeze_mlp": "True",
    "use_llm_lora": "16", "lora_alpha": "32", "lora_dropout": "0.05",
    "min_num_frame": "16", "max_num_frame": "16", "max_seq_length": "8192",
    "num_train_epochs": "1", "learning_rate": "4e-5", "lr_scheduler_type": "cosine",
    "warmup_steps": "0.03", "adam_beta1": "0.9", "adam_beta2": "0.999", "bf16": "True",
    "gradient_checkpointing": "True", "group_by_length": "True",
}  # fmt: skip


def flags_of(size, tmp_path, *overrides, **environment):
    python = tmp_path / "python"
    python.write_text(PYTHON_WITH_GPUS)
    python.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name != "GPUS"}
    words = subprocess.run(
        ["sh", ROOT / SCRIPT.format(size), *overrides],
        env=clean | {"PYTHON": str(python)} | environment,
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout.splitlines()  # fmt: skip
    launcher, flags = words[: words.index("distime.train.finetune")], words
    pairs = zip(flags, flags[1:], strict=False)
    # Of a flag that is there twice, the last counts.
    return launcher, {name[2:]: value for name, value in pairs if name.startswith("--")}


@pytest.mark.parametrize(("size", "weight_decay"), [("1b", "0.01"), ("8b", "0.05")])
def test_numbers_are_the_published_ones(tmp_path, size, weight_decay):
    launcher, flags = flags_of(size, tmp_path)
    assert {name: flags[name] for name in PUBLISHED} == PUBLISHED
    assert flags["weight_decay"] == weight_decay
    assert launcher[launcher.index("--nproc_per_node") + 1] == "8"
    batch = int(flags["per_device_train_batch_size"]) * int(flags["gradient_accumulation_steps"])
    assert 8 * batch == 128
    assert Path(flags["deepspeed"]).name == "zero_stage2_config.json"
    assert Path(flags["deepspeed"]).is_file()
    assert flags["model_name_or_path"].endswith(f"InternVL2_5-{size.upper()}")


def test_environment_and_trailing_flags_override(tmp_path):
    _, flags = flags_of(
        "1b", tmp_path, "--learning_rate", "1e-5", "--max_num_frame", "32",
        GPUS="4", BATCH_SIZE="64", PER_DEVICE_BATCH_SIZE="2", META_PATH="m e/ta.json",
        MODEL="some model", OUTPUT_DIR="out",
    )  # fmt: skip
    assert (flags["learning_rate"], flags["max_num_frame"]) == ("1e-5", "32")
    assert flags["gradient_accumulation_steps"] == "8"
    assert (flags["meta_path"], flags["model_name_or_path"]) == ("m e/ta.json", "some model")


@pytest.mark.slow
def test_own_data_in_five_minutes(tmp_path):
    """The commands of docs/TRAINING.md as they stand: two processes, a trailing override."""
    page = (ROOT / "docs/TRAINING.md").read_text(encoding="utf-8")
    section = page.split("## Your own data in five minutes")[1].split("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (tmp_path / "own_data.py").write_text(program)
    (tmp_path / "internvl_chat").symlink_to(ROOT / "internvl_chat")
    for name, module in (("python", ""), ("distime", "-m distime.cli")):
        shim = tmp_path / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "$TEST_PYTHON" {module} "$@"\n')
        shim.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TEST_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT / "internvl_chat"), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    run = subprocess.run(
        ["sh", "-eu", "-c", commands], env=environment, cwd=tmp_path, capture_output=True,
        text=True, timeout=500, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "0 errors, 0 warnings" in run.stdout
    assert "16 samples, 0 broken and replaced" in run.stderr
    assert "shapes_000000000.mp4: the red square is visible." in run.stdout
