"""The fine-tuning entry point on a tiny model and real mp4 files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.processing.video import encode_video
from distime.tiny import write_tiny_checkpoint
from distime.train import finetune
from distime.train.arguments import ArgumentError, ModelArguments
from distime.train.lora import merge_lora, select_trainable

LAUNCH = str(Path(finetune.__file__).resolve().parents[2] / "shell/distime/launch.sh")
WORDS = ["when does the red square appear ? at . yes no what is seen"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A tiny checkpoint, two videos, and eight items about them."""
    folder = tmp_path_factory.mktemp("work space")  # with a blank, as users have
    write_tiny_checkpoint(folder / "tiny", WORDS, hidden_size=32, num_layers=2, num_frames=4)
    noise = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4"):
        frames = noise.integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
        encode_video(folder / name, frames, fps=4)
    lines = []
    for number in range(8):
        start = number / 4
        turns = [
            {"from": "human", "value": "<video>\nwhen does the red square appear?"},
            {"from": "gpt", "value": "at <TIME_STAMP>."},
        ]
        video = "ab"[number % 2] + ".mp4"
        lines.append({"video": video, "tgt": [start, start + 1], "conversations": turns})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"tiny": {"root": ".", "annotation": "train.jsonl"}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def train(workspace, out, *flags, expect=0):
    arguments = {
        "--model_name_or_path": workspace / "tiny", "--meta_path": workspace / "meta.json",
        "--output_dir": out, "--use_cpu": True, "--report_to": "none", "--save_strategy": "no",
        "--min_num_frame": 4, "--max_num_frame": 4, "--learning_rate": 1e-3,
        "--logging_steps": 1, "--disable_tqdm": True, "--dataloader_num_workers": 0,
        "--sampling_method": "middle",
    }  # fmt: skip
    argv = [str(word) for pair in arguments.items() for word in pair] + [str(f) for f in flags]
    assert finetune.main(argv) == expect


def parameters(folder):
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    return dict(model.named_parameters())


def test_output_is_a_whole_checkpoint(workspace, tmp_path):
    train(workspace, tmp_path / "out", "--max_steps", 2, "--per_device_train_batch_size", 4)
    processor = DisTimeProcessor.from_pretrained(tmp_path / "out")
    model = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "out")
    processor.check_model(model.config)
    before = parameters(workspace / "tiny")
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert any(name.startswith("time_decoder") for name in moved)
    assert any(name.startswith("model.vision_tower") for name in moved)
    inputs = processor(workspace / "a.mp4", "when?", 4)
    assert model.generate(**inputs, max_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


def test_lora_trains_adapters_embeddings_and_time_modules_alone(workspace, tmp_path):
    train(
        workspace, tmp_path / "out", "--max_steps", 2, "--per_device_train_batch_size", 4,
        "--use_llm_lora", 4, "--freeze_llm", True, "--freeze_backbone", True,
        "--freeze_mlp", True,
    )  # fmt: skip
    before, after = parameters(workspace / "tiny"), parameters(tmp_path / "out")
    assert before.keys() == after.keys()  # merged: no adapter is left over
    for name, parameter in after.items():
        adapted = re.search(r"language_model\.layers\..*_proj\.weight", name)
        in_full = name.startswith(("time_", "lm_head")) or "embed_tokens" in name
        changed = not torch.equal(parameter, before[name])
        assert changed == bool(adapted or in_full), name


@pytest.mark.parametrize("tied", [True, False])
def test_merged_lora_answers_as_unmerged(workspace, tied):
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration.from_pretrained(
        workspace / "tiny", config_overrides={"tie_word_embeddings": tied}
    ) if tied else _untied(workspace / "tiny")  # fmt: skip
    arguments = ModelArguments(str(workspace / "tiny"), freeze_llm=True, use_llm_lora=4)
    select_trainable(model, arguments)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    model.eval()
    ids = torch.arange(2, 20)[None]
    expected = model(input_ids=ids).logits
    assert merge_lora(model) == 2 * 7
    torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name for name in model.state_dict())


def _untied(folder):
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    return model


def test_killed_training_goes_on_as_if_nothing_had_happened(workspace, tmp_path):
    settings = ("--per_device_train_batch_size", 2, "--num_train_epochs", 2)
    train(workspace, tmp_path / "whole", *settings)
    saving = ("--save_strategy", "steps", "--save_steps", 1)
    train(workspace, tmp_path / "parts", *settings, *saving)
    # As after a kill: the newest checkpoint is that of step 5 of 8, the rest is gone.
    for step in (6, 7, 8):
        for file in (tmp_path / "parts" / f"checkpoint-{step}").iterdir():
            file.unlink()
        (tmp_path / "parts" / f"checkpoint-{step}").rmdir()
    train(workspace, tmp_path / "parts", *settings, *saving, "--resume", "auto")
    expected = parameters(tmp_path / "whole")
    for name, parameter in parameters(tmp_path / "parts").items():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=0, msg=name)


def test_a_loss_that_is_not_finite_names_the_samples(workspace, tmp_path, caplog):
    train(workspace, tmp_path / "out", "--max_steps", 20, "--learning_rate", 1e30,
          "--max_grad_norm", 1e30, "--per_device_train_batch_size", 4, expect=1)  # fmt: skip
    assert re.search(r"not finite: .*train\.jsonl:\d", caplog.text)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_too_many_broken_samples_stop_the_run(workspace, tmp_path, caplog):
    lines = (workspace / "train.jsonl").read_text().replace("a.mp4", "gone.mp4")
    (workspace / "broken.jsonl").write_text(lines)
    meta = {"tiny": {"root": ".", "annotation": "broken.jsonl"}}
    (workspace / "broken.json").write_text(json.dumps(meta))
    flags = ("--meta_path", workspace / "broken.json", "--per_device_train_batch_size", 4,
             "--max_steps", 2, "--max_bad_samples")  # fmt: skip
    train(workspace, tmp_path / "enough", *flags, 100)
    assert "4 broken and replaced" in caplog.text and "gone.mp4" in caplog.text
    train(workspace, tmp_path / "strict", *flags, 1, expect=1)
    assert "more than --max_bad_samples 1" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--meta_path", "nowhere.json"), "--meta_path nowhere.json: no such file"),
        (("--model_name_or_path", "nowhere"), "--model_name_or_path nowhere: no config.json"),
        (("--conv_style", "vicuna"), "--conv_style vicuna: only internvl2_5"),
        (("--use_llm_lora", 4), "--use_llm_lora needs --freeze_llm True"),
        (("--distribution_loss_reduction", "max"), "choose sum or mean"),
        (("--resume", "yes"), "--resume yes: choose auto or none"),
        (("--per_device_train_batch_size", 99), "the data make 8 rows, but one step takes 99"),
        (("--dec_reg", 16), "time_decoder.layers.2"),
    ],
)
def test_wrong_flags_fail_at_the_start(workspace, tmp_path, caplog, flags, message):
    train(workspace, tmp_path / "out", *flags, expect=2)
    assert message in caplog.text
    assert not (tmp_path / "out" / "config.json").exists()


def test_arguments_need_a_checkpoint():
    with pytest.raises(ArgumentError, match="--model_name_or_path is required"):
        ModelArguments()


@pytest.mark.slow
def test_two_processes_train_as_one(workspace, tmp_path):
    """Through the launch script, with a text-only item and videos on different ranks."""
    flags = [
        "--model_name_or_path", workspace / "tiny", "--meta_path", workspace / "mixed.json",
        "--max_steps", 2, "--learning_rate", 1e-3, "--min_num_frame", 4, "--max_num_frame", 4,
        "--sampling_method", "middle", "--save_strategy", "no", "--report_to", "none",
    ]  # fmt: skip
    lines = (workspace / "train.jsonl").read_text().splitlines()[:3]
    turns = [{"from": "human", "value": "what is seen?"}, {"from": "gpt", "value": "no."}]
    lines += [json.dumps({"conversations": turns})] * 5
    (workspace / "mixed.jsonl").write_text("\n".join(lines))
    meta = {"mixed": {"root": ".", "annotation": "mixed.jsonl"}}
    (workspace / "mixed.json").write_text(json.dumps(meta))
    for processes in (1, 2):
        out = tmp_path / f"out {processes}"
        environment = os.environ | {
            "GPUS": str(processes), "BATCH_SIZE": "4", "PYTHON": sys.executable,
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        command = ["sh", LAUNCH, *map(str, flags), "--output_dir", str(out)]
        subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    alone, together = parameters(tmp_path / "out 1"), parameters(tmp_path / "out 2")
    for name, parameter in together.items():
        torch.testing.assert_close(parameter, alone[name], rtol=1e-3, atol=2e-5, msg=name)


def test_launch_script_refuses_a_batch_that_does_not_divide(tmp_path):
    environment = os.environ | {"GPUS": "3", "BATCH_SIZE": "4", "PYTHON": sys.executable}
    done = subprocess.run(["sh", LAUNCH], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "BATCH_SIZE=4 is not a multiple" in done.stderr


def test_processes_share_the_counting_of_tokens(monkeypatch):
    class Data(list):
        def lengths(self, indices, show_progress):
            return [self[index] for index in indices]

    data = Data([5, 3, 8, 1, 7])
    parts = [[5, 1], [3, 7], [8]]
    for rank in range(3):
        monkeypatch.setattr(finetune, "gather_object", lambda share, r=rank: (
            [*parts[:r], *share, *parts[r + 1 :]]))  # fmt: skip
        training = SimpleNamespace(process_index=rank, world_size=3)
        assert finetune.token_lengths(data, training) == data
