"""Fine-tuning with the real command, on every backbone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distime import DisTime, DisTimeProcessor
from distime.backbones import BACKBONES
from distime.processing.video import encode_video
from distime.toy.tiny import write_tiny_checkpoint
from distime.train import speed
from distime.train.arguments import ArgumentError
from tiny_runs import parameters, train

LORA = ("--freeze_backbone", True, "--freeze_mlp", True, "--freeze_llm", True)
# Adam would turn the rounding of a gradient near zero into a whole step.
LORA += ("--optim", "sgd", "--learning_rate", 0.1)
LORA += ("--use_llm_lora", 4, "--lora_dropout", 0, "--max_steps", 2, "--save_strategy", "no")
WORDS = ["when does the red square appear ? at . yes no what is seen"]


@pytest.fixture(scope="module", params=BACKBONES)
def workspace(request, tmp_path_factory):
    """A tiny checkpoint and items about two videos of different sizes, an image, and nothing."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_checkpoint(
        folder / "tiny", WORDS, hidden_size=32, num_layers=2, num_frames=4, backbone=request.param
    )
    noise = np.random.default_rng(0)
    items = []
    for name, size in (("a.mp4", (64, 64)), ("b.mp4", (64, 128))):
        encode_video(folder / name, noise.integers(0, 255, (16, *size, 3), dtype=np.uint8), fps=4)
        for start in (0, 1, 2):
            question = {"from": "human", "value": "<video>\nwhen does the red square appear?"}
            answer = {"from": "gpt", "value": "at <TIME_STAMP>."}
            turns = [question, answer]
            items.append({"video": name, "tgt": [start, start + 1], "conversations": turns})
    yes = [{"from": "human", "value": "what is seen?"}, {"from": "gpt", "value": "yes no"}]
    items.append({"conversations": yes})
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / "train.jsonl").write_text(lines)
    (folder / "meta.json").write_text(
        json.dumps({"tiny": {"root": ".", "annotation": "train.jsonl"}})
    )
    return folder


def test_packed_with_shared_frames_and_cached_features(workspace, tmp_path):
    flags = (*LORA, "--share_video_prefix", True, "--packing", True, "--max_seq_length", 512)
    flags += ("--max_items_per_group", 3, "--per_device_train_batch_size", 1)
    train(workspace, tmp_path / "pixels", *flags)
    flags += ("--export", "both")
    train(workspace, tmp_path / "cached", *flags, "--cache_features", tmp_path / "features")
    before, pixels, cached = (
        parameters(folder)
        for folder in (workspace / "tiny", tmp_path / "pixels", tmp_path / "cached")
    )
    changed = {name for name in before if not torch.equal(before[name], pixels[name])}
    assert any("self_attn" in name for name in changed)
    assert any(name.startswith("time_encoder") for name in changed)
    assert not any(name.startswith(("model.visual", "model.vision_tower")) for name in changed)
    for name, parameter in cached.items():
        torch.testing.assert_close(parameter, pixels[name], rtol=1e-5, atol=1e-7, msg=name)
    for name, parameter in parameters(tmp_path / "cached" / "adapter").items():
        torch.testing.assert_close(parameter, cached[name], rtol=0, atol=3e-6, msg=name)
    model = DisTime.from_pretrained(tmp_path / "cached", device="cpu")
    assert isinstance(model.chat(workspace / "b.mp4", "what is seen?", max_new_tokens=4).text, str)


def test_flags_that_a_backbone_cannot_follow_are_refused(workspace, monkeypatch):
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    data = SimpleNamespace(packing=True, share_video_prefix=True, processor_overrides={})
    model = SimpleNamespace(attn_implementation="sdpa")
    speed.check_backbone(processor, model, data, SimpleNamespace())
    if processor.backbone.model_class.position_rows > 1:
        model.attn_implementation = "flash_attention_2"
        with pytest.raises(ArgumentError, match="choose sdpa, or leave --packing out"):
            speed.check_backbone(processor, model, data, SimpleNamespace())
        model.attn_implementation = "sdpa"
    data.processor_overrides = {"no_such_setting": 1}
    with pytest.raises(ArgumentError, match="has no setting no_such_setting"):
        speed.check_backbone(processor, model, data, SimpleNamespace())
    limits = {"share_video_prefix": "has a state that no mask can part"}
    monkeypatch.setattr(processor.backbone.model_class, "limits", limits)
    with pytest.raises(ArgumentError, match="--share_video_prefix: .* has a state"):
        speed.check_backbone(processor, model, data, SimpleNamespace())


def test_everything_is_trained_with_recomputed_activations(workspace, tmp_path):
    flags = (
        "--max_steps",
        1,
        "--optim",
        "sgd",
        "--learning_rate",
        0.1,
        "--per_device_train_batch_size",
        4,
    )
    train(workspace, tmp_path / "plain", *flags)
    train(workspace, tmp_path / "again", *flags, "--gradient_checkpointing", True)
    plain, again = parameters(tmp_path / "plain"), parameters(tmp_path / "again")
    for name, parameter in again.items():
        torch.testing.assert_close(parameter, plain[name], rtol=1e-4, atol=1e-6, msg=name)
