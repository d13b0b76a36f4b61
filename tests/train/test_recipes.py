"""The published recipes: their numbers, and that the documented commands run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from distime import DisTimeForConditionalGeneration
from distime.processing.video import encode_video
from distime.toy.tiny import write_tiny_checkpoint
from tiny_runs import parameters

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "internvl_chat/shell/distime"
INTERNVL = "internvl2_5_{}_dynamic_res_merged_stage_finetune_lora.sh"
OTHERS = {
    "llava_onevision": "llava_onevision_7b_finetune_lora.sh",
    "qwen3_vl": "qwen3_vl_finetune_lora.sh",
}
"""By backbone."""

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


def flags_of(script, tmp_path, *overrides, **environment):
    python = tmp_path / "python"
    python.write_text(PYTHON_WITH_GPUS)
    python.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name != "GPUS"}
    words = subprocess.run(
        ["sh", SCRIPTS / script, *overrides],
        env=clean | {"PYTHON": str(python)} | environment,
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout.splitlines()  # fmt: skip
    launcher, flags = words[: words.index("distime.train.finetune")], words
    pairs = zip(flags, flags[1:], strict=False)
    # Of a flag that is there twice, the last counts.
    return launcher, {name[2:]: value for name, value in pairs if name.startswith("--")}


@pytest.mark.parametrize(("size", "weight_decay"), [("1b", "0.01"), ("8b", "0.05")])
def test_numbers_are_the_published_ones(tmp_path, size, weight_decay):
    launcher, flags = flags_of(INTERNVL.format(size), tmp_path)
    assert {name: flags[name] for name in PUBLISHED} == PUBLISHED
    assert flags["weight_decay"] == weight_decay
    assert launcher[launcher.index("--nproc_per_node") + 1] == "8"
    batch = int(flags["per_device_train_batch_size"]) * int(flags["gradient_accumulation_steps"])
    assert 8 * batch == 128
    assert Path(flags["deepspeed"]).name == "zero_stage2_config.json"
    assert Path(flags["deepspeed"]).is_file()
    assert flags["model_name_or_path"].endswith(f"InternVL2_5-{size.upper()}")


@pytest.mark.parametrize("script", OTHERS.values())
def test_other_backbones_have_the_same_recipe(tmp_path, script):
    launcher, flags = flags_of(script, tmp_path)
    same = {name: value for name, value in PUBLISHED.items() if name != "conv_style"}
    assert {name: flags[name] for name in same} == same
    assert "conv_style" not in flags and flags["weight_decay"] == "0.05"
    batch = int(flags["per_device_train_batch_size"]) * int(flags["gradient_accumulation_steps"])
    assert 8 * batch == 128
    comment = (SCRIPTS / script).read_text().split("\nset -eu")[0]
    assert "ours" in comment  # which numbers the paper does not have


@pytest.mark.slow
@pytest.mark.parametrize("backbone", OTHERS)
def test_recipes_of_other_backbones_train_their_tiny_model(tmp_path, backbone):
    question = {"from": "human", "value": "<video>\nwhen does it happen?"}
    answer = {"from": "gpt", "value": "at <TIME_STAMP>."}
    write_tiny_checkpoint(
        tmp_path / "tiny", [question["value"], answer["value"]], hidden_size=32, num_layers=1,
        num_frames=4, backbone=backbone,
    )  # fmt: skip
    encode_video(tmp_path / "a.mp4", np.zeros((16, 64, 64, 3), np.uint8), fps=4)
    item = {"video": "a.mp4", "tgt": [1, 2], "conversations": [question, answer]}
    (tmp_path / "train.jsonl").write_text(json.dumps(item) + "\n")
    meta = {"one": {"root": ".", "annotation": "train.jsonl"}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    environment = os.environ | {
        "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "GPUS": "1", "BATCH_SIZE": "1",
        "MODEL": "tiny", "META_PATH": "meta.json", "OUTPUT_DIR": "out",
    }  # fmt: skip
    flags = ("--max_steps", "2", "--dataloader_num_workers", "0", "--report_to", "none")
    run = subprocess.run(
        ["sh", SCRIPTS / OTHERS[backbone], *flags], env=environment, cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    before, after = parameters(tmp_path / "tiny"), parameters(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # Vision tower and projector stay; LoRA, the time modules and both vocabularies learn.
    assert any("self_attn" in name for name in changed)
    assert any(name.startswith("time_decoder") for name in changed)
    assert "model.language_model.embed_tokens.weight" in changed
    parts = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "out").parts
    assert not any(name.startswith((*parts.vision, *parts.projector)) for name in changed)


REWARD_RECIPES = {
    "internvl2_5_1b_{}_lora.sh": "InternVL2_5-1B",
    "internvl2_5_8b_{}_lora.sh": "InternVL2_5-8B",
    "qwen3_vl_{}_lora.sh": "Qwen3-VL-8B",
}


@pytest.mark.parametrize("script", REWARD_RECIPES)
def test_recipes_of_rewards_are_those_of_fine_tuning_but_for_their_own_flags(tmp_path, script):
    name = REWARD_RECIPES[script]
    _, flags = flags_of(script.format("expected_reward"), tmp_path)
    same = {name: value for name, value in PUBLISHED.items() if name != "conv_style"}
    assert {name: flags[name] for name in same} == same
    assert (flags["objective"], flags["rewards"]) == ("expected_reward", "tiou")
    assert flags["output_dir"].endswith(f"DisTime-{name}-expected-reward")
    _, flags = flags_of(script.format("grpo"), tmp_path, "--kl_weight", "0.04")
    assert (flags["objective"], flags["rewards"], flags["kl_weight"]) == ("grpo", "twass1", "0.04")
    assert flags["model_name_or_path"].endswith(f"DisTime-{name}")
    assert flags["train_embeddings"] == "new_rows"  # with which the start model can be told
    batch = int(flags["per_device_train_batch_size"]) * int(flags["gradient_accumulation_steps"])
    assert 8 * batch == 8


def test_environment_and_trailing_flags_override(tmp_path):
    _, flags = flags_of(
        INTERNVL.format("1b"), tmp_path, "--learning_rate", "1e-5", "--max_num_frame", "32",
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
