"""The fine-tuning entry point on a tiny model and real mp4 files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.dataset import DataSettings, TrainingData
from distime.processing.processor import ProcessorSettings
from distime.processing.prompt import Media
from distime.train import finetune
from distime.train.arguments import ArgumentError, DataArguments, ModelArguments
from distime.train.trainer import DisTimeTrainer
from tiny_runs import LAUNCH, parameters, train


@pytest.mark.smoke
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


def test_frames_by_the_second_are_trained_and_kept(workspace, tmp_path, monkeypatch):
    """Four seconds, three frames of four tokens each; the budget takes two of them."""
    shown = set()
    decode = TrainingData._decode

    def spy(self, *arguments):
        loaded = decode(self, *arguments)
        shown.add((loaded.media, tuple(loaded.pixel_values.shape)))
        return loaded

    monkeypatch.setattr(TrainingData, "_decode", spy)
    frames = ("--fps", 1, "--max-frames", 3, "--max_video_tokens", 11, "--image_size", 112)
    numbers = ("--min_num_frame", 16, "--max_num_frame", 16)
    train(workspace, tmp_path / "out", "--max_steps", 1, *numbers, *frames)
    assert shown == {(Media(4, num_frames=2), (2, 3, 112, 112))}
    processor = DisTimeProcessor.from_pretrained(tmp_path / "out")
    settings = processor.settings
    assert (settings.fps, settings.max_frames, settings.max_video_tokens) == (1, 3, 11)
    model = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "out")
    processor.check_model(model.config)
    assert model.config.image_seq_length == 4


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


def test_a_frozen_time_head_stays_as_it_is(workspace, tmp_path):
    train(workspace, tmp_path / "out", "--freeze_time_head", True, "--max_steps", 1)
    before, after = parameters(workspace / "tiny"), parameters(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith("time_") for name in changed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--fps 2 --max_frames 4", "--fps 2 goes by the second: leave out --min_num_frame"),
        ("--max_num_frame 16 --min_num_frame 16 --fps 2", "fps 2 without max_frames"),
        ("--max_video_tokens 0", "--max_video_tokens 0"),
        ("--image_size 60", "image_size 60 is not a multiple of 56"),
    ],
)
def test_frame_flags_that_do_not_go_together(workspace, tmp_path, caplog, words, message):
    train(workspace, tmp_path / "out", *words.split(), expect=2)
    assert message in caplog.text


def test_numbers_of_frames_end_those_by_the_second():
    saved = ProcessorSettings(fps=2, max_frames=8)
    asked = DataArguments.__new__(DataArguments)
    vars(asked).update(min_num_frame=8, max_num_frame=8)
    assert asked.frame_settings(saved)["num_frames"] == 8
    vars(asked).update(min_num_frame=16, max_num_frame=16)
    assert "num_frames" not in asked.frame_settings(saved)
    assert "num_frames" not in asked.frame_settings(ProcessorSettings())


def test_a_loss_that_is_not_finite_names_the_samples(workspace, tmp_path, caplog):
    train(workspace, tmp_path / "out", "--max_steps", 20, "--learning_rate", 1e30,
          "--max_grad_norm", 1e30, "--per_device_train_batch_size", 4, expect=1)  # fmt: skip
    assert re.search(r"not finite: .*train\.jsonl:\d", caplog.text)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_gradient_that_is_not_finite_names_the_samples_of_its_own_step(
    workspace, tmp_path, caplog, monkeypatch
):
    losses = []

    def load(*arguments):
        model = load_model(*arguments)
        model.time_decoder.layers[-1].weight.register_hook(lambda gradient: gradient * torch.inf)
        model.register_forward_hook(lambda *call: losses.append(call[-1].loss.item()))
        return model

    load_model = finetune.load_model
    monkeypatch.setattr(finetune, "load_model", load)
    train(workspace, tmp_path / "out", "--max_steps", 2, "--per_device_train_batch_size", 2,
          "--max_grad_norm", 0, "--save_steps", 1, expect=1)  # fmt: skip
    assert len(losses) == 1 and torch.tensor(losses).isfinite().all()
    assert re.search(r"step 0: the gradient is not finite(.*train\.jsonl:\d){2}", caplog.text)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


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


def test_items_and_what_they_lose_are_counted_and_named(workspace, tmp_path, caplog, monkeypatch):
    """Nine items that share a video, one that does not, one that is empty, and one that is cut."""
    logged, log = [], DisTimeTrainer.log
    monkeypatch.setattr(
        DisTimeTrainer,
        "log",
        lambda self, logs, *more: (log(self, logs, *more), logged.append(logs)),
    )
    (line, *_) = map(json.loads, (workspace / "train.jsonl").read_text().splitlines())
    turns = line["conversations"]
    asked = turns[0]["value"].removeprefix("<video>").strip()

    def changed(question=turns[0]["value"], answer=turns[1]["value"]):
        spoken = zip(turns, (question, answer), strict=True)
        return line | {"conversations": [turn | {"value": text} for turn, text in spoken]}

    lines = [changed() for _ in range(9)] + [changed(f"{asked} <video>"), changed(answer=" ")]
    lines.append(changed(answer="the the the the the the the <TIME_STAMP>"))
    lines[-1]["tgt"] = line["tgt"][:2]
    (workspace / "shared.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    meta = {"tiny": {"root": ".", "annotation": "shared.jsonl"}}
    (workspace / "shared.json").write_text(json.dumps(meta))
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    frames = {"min_num_frame": 2, "max_num_frame": 2}
    data = TrainingData(workspace / "shared.json", processor, DataSettings(**frames))
    lengths = data.lengths()
    assert lengths[-1] > max(lengths[:-1]) + 2
    train(workspace, tmp_path / "out", "--meta_path", workspace / "shared.json",
          "--share_video_prefix", True, "--num_train_epochs", 1, "--per_device_train_batch_size", 2,
          "--max_seq_length", lengths[-1] - 2, "--min_num_frame", 2, "--max_num_frame", 2,
          "--logging_steps", 1)  # fmt: skip
    said = caplog.text
    assert "11 samples, 1 broken and replaced or left out, 1 cut to --max_seq_length (and 1" in said
    assert "left out a broken sample: " in said and "shared.jsonl:11: turn 2 is empty" in said
    assert "shared.jsonl:12: 2 of " in said and "and 1 of its intervals with them" in said
    assert sum(line.get("intervals_lost_to_length", 0) for line in logged) == 1
    assert sum(line.get("broken_samples", 0) for line in logged) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--meta_path", "nowhere.json"), "--meta_path nowhere.json: no such file"),
        (("--model_name_or_path", "nowhere"), "--model_name_or_path nowhere: no config.json"),
        (("--conv_style", "vicuna"), "--conv_style vicuna: only internvl2_5"),
        (("--use_llm_lora", 4), "--use_llm_lora needs --freeze_llm True"),
        (("--distribution_loss_reduction", "max"), "choose sum or mean"),
        (("--resume", "yes"), "--resume yes: choose auto or none"),
        (("--resume_from_checkpoint", "x"), "--resume_from_checkpoint is not used"),
        (
            ("--train_embeddings", "some"),
            "some: choose full or new_rows or none",
        ),
        (("--export", "lora"), "--export lora: choose full or adapter or both"),
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

    data, saved = Data([5, 3, 8, 1, 7]), []
    parts = [[5], [3, 8], [1, 7]]
    kept = SimpleNamespace(load=lambda: None, save=saved.append)
    monkeypatch.setattr(finetune, "KeptLengths", lambda data, folder: kept)
    monkeypatch.setattr(finetune, "broadcast_object_list", lambda values: values)
    for rank in range(3):
        monkeypatch.setattr(finetune, "gather_object", lambda share, r=rank: (
            [*parts[:r], *share, *parts[r + 1 :]]))  # fmt: skip
        training = SimpleNamespace(process_index=rank, world_size=3, output_dir="out")
        assert finetune.token_lengths(data, training) == data
    assert saved == [data]  # by the first process alone
