"""Options that serve speed change neither losses nor gradients, and refuse what cannot work."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.data.collator import FOR_TRAINER, Collator
from distime.data.dataset import DataSettings, TrainingData
from distime.train import finetune, speed
from distime.train.arguments import DataArguments, ModelArguments, TrainArguments
from distime.train.lora import select_trainable


@pytest.fixture(scope="module")
def workspace(workspace):
    """With one more item, of text alone."""
    turns = [{"from": "human", "value": "what is seen?"}, {"from": "gpt", "value": "no."}]
    with (workspace / "train.jsonl").open("a") as annotation:
        annotation.write(json.dumps({"conversations": turns}) + "\n")
    return workspace


def batches(workspace):
    """One padded batch, and one of packed rows with shared prefixes."""
    processor = DisTimeProcessor.from_pretrained(workspace / "tiny")
    for share in (False, True):
        settings = DataSettings(4, 4, "middle", share_video_prefix=share)
        data = TrainingData(workspace / "meta.json", processor, settings)
        groups = [data.prepare(index) for index in range(len(data))]
        rows = [groups] if share else [[group] for group in groups]
        batch = Collator(processor.token_ids.pad)(rows)
        yield {name: value for name, value in batch.items() if name not in FOR_TRAINER}


def gradients(workspace, recipe, **training):
    """Losses and gradients of the batches, with LoRA dropout drawn alike every time."""
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny").train()
    torch.manual_seed(0)
    select_trainable(model, ModelArguments(str(workspace / "tiny"), **recipe))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    arguments = TrainArguments(output_dir=str(workspace / "out"), use_cpu=True, **training)
    speed.apply(model, arguments)
    losses = []
    for batch in batches(workspace):
        torch.manual_seed(1)
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
    return model, losses, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


LORA = {"freeze_llm": True, "freeze_backbone": True, "freeze_mlp": True, "use_llm_lora": 4}
NO_EMBEDDINGS = {"train_embeddings": False}


@pytest.mark.parametrize(
    ("recipe", "parts", "layers"),
    [
        ({}, "", {"vision", "language"}),
        ({}, "vision", {"vision"}),
        (LORA, "", {"vision", "language"}),
        (LORA | NO_EMBEDDINGS, "", {"vision", "language"}),
    ],
)
def test_recomputing_activations_changes_no_gradient(workspace, recipe, parts, layers):
    _, losses, expected = gradients(workspace, recipe)
    model, recomputed, actual = gradients(
        workspace, recipe, gradient_checkpointing=True, checkpoint_parts=parts
    )
    assert recomputed == pytest.approx(losses, abs=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    first = {"vision": model.model.vision_tower.encoder.layer[0],
             "language": model.model.language_model.layers[0]}  # fmt: skip
    assert {part for part, layer in first.items() if layer.gradient_checkpointing} == layers


def test_a_frozen_vision_tower_keeps_nothing_for_the_backward_pass(workspace):
    model, *_ = gradients(workspace, LORA, gradient_checkpointing=True)
    features = model.get_image_features(pixel_values=torch.zeros(1, 3, 56, 56)).pooler_output
    assert not features.requires_grad


def train(workspace, out, *flags, expect=0):
    arguments = {
        "--model_name_or_path": workspace / "tiny", "--meta_path": workspace / "meta.json",
        "--output_dir": out, "--use_cpu": True, "--report_to": "none", "--save_strategy": "no",
        "--min_num_frame": 4, "--max_num_frame": 4, "--learning_rate": 1e-3, "--max_steps": 2,
        "--logging_steps": 1, "--disable_tqdm": True, "--dataloader_num_workers": 0,
        "--sampling_method": "middle", "--per_device_train_batch_size": 7,
        "--freeze_backbone": True, "--freeze_mlp": True,
    }  # fmt: skip
    argv = [str(word) for pair in arguments.items() for word in pair] + [str(f) for f in flags]
    assert finetune.main(argv) == expect


def parameters(folder):
    return dict(DisTimeForConditionalGeneration.from_pretrained(folder).named_parameters())


@pytest.mark.parametrize("flags", [(), ("--share_video_prefix", True, "--packing", True)])
def test_cached_features_train_as_pixels(workspace, tmp_path, flags, monkeypatch, caplog):
    if flags:
        flags += ("--per_device_train_batch_size", 1)
    train(workspace, tmp_path / "pixels", *flags)
    cached = (*flags, "--cache_features", tmp_path / "features")
    train(workspace, tmp_path / "cached", *cached)
    assert "2 files written" in caplog.text and "GB of features to write (8 tokens" in caplog.text
    expected = parameters(tmp_path / "pixels")
    for name, parameter in parameters(tmp_path / "cached").items():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-7, msg=name)

    def decode(*_):
        raise AssertionError("the second run decodes and encodes nothing")

    caplog.clear()
    monkeypatch.setattr(DisTimeProcessor, "load_video", decode)
    monkeypatch.setattr(DisTimeForConditionalGeneration, "encode_images", decode)
    train(workspace, tmp_path / "again", *cached)
    assert "0 files written" in caplog.text
    for name, parameter in parameters(tmp_path / "again").items():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--attn_implementation", "fast"), "--attn_implementation fast: choose sdpa"),
        (("--attn_implementation", "flash_attention_2"), "trains on a GPU only"),
        (("--attn_implementation", "flex_attention"), "trains on a GPU only"),
        (("--checkpoint_parts", "vision"), "--checkpoint_parts needs --gradient_checkpointing"),
        (
            ("--gradient_checkpointing", True, "--checkpoint_parts", "vision,head"),
            "'head' is none of vision, language",
        ),
        (
            ("--cache_features", "features", "--freeze_mlp", False),
            "add --freeze_backbone True --freeze_mlp True",
        ),
        (("--cache_features", "features", "--sampling_method", "rand"), "same frames in every"),
        (("--cache_features", "features", "--min_num_frame", 2), "same frames in every epoch"),
        (("--cache_features", "features", "--cache_samples", True), "choose one of them"),
    ],
)
def test_what_cannot_work_is_refused(workspace, tmp_path, caplog, monkeypatch, flags, message):
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    train(workspace, tmp_path / "out", *flags, expect=2)
    assert message in caplog.text
    assert not list(tmp_path.iterdir())


def check(workspace, data=(), **training):
    """`speed.check` on a machine that says it has a GPU."""
    meta = str(workspace / "meta.json")
    arguments = TrainArguments(output_dir="out", use_cpu=True, **training)
    arguments.use_cpu = False
    speed.check(
        ModelArguments(str(workspace / "tiny"), attn_implementation="flash_attention_2"),
        DataArguments(meta_path=meta, **dict(data)),
        arguments,
    )


def test_flash_attention_is_refused_where_it_cannot_work(workspace, monkeypatch):
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(speed, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(ValueError, match="flash-attn is not installed"):
        check(workspace)
    monkeypatch.setattr(speed, "is_flash_attn_2_available", lambda: True)
    check(workspace, {"packing": True}, per_device_train_batch_size=1)
    with pytest.raises(ValueError, match="--per_device_train_batch_size 1"):
        check(workspace, {"packing": True}, per_device_train_batch_size=2)
    with pytest.raises(ValueError, match="with --share_video_prefix"):
        check(workspace, {"share_video_prefix": True})


def test_liger_kernels_go_to_the_language_model(workspace, monkeypatch):
    arguments = ModelArguments(str(workspace / "tiny"))
    training = TrainArguments(output_dir="out", use_cpu=True, use_liger_kernel=True)
    monkeypatch.setattr(speed, "is_liger_kernel_available", lambda: False)
    settings = DataArguments(meta_path=str(workspace / "meta.json"))
    with pytest.raises(ValueError, match="liger-kernel is not installed"):
        speed.check(arguments, settings, training)
    monkeypatch.setattr(speed, "is_liger_kernel_available", lambda: True)
    with pytest.raises(ValueError, match="--use_liger_kernel needs a GPU"):
        speed.check(arguments, settings, training)

    calls = []
    fake = ModuleType("liger_kernel.transformers")
    fake._apply_liger_kernel_to_instance = lambda **options: calls.append(options)
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake)
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny")
    speed.apply(model, training)
    expected = {"fused_linear_cross_entropy": False, "cross_entropy": False}
    assert calls == [{"model": model.model.language_model} | expected]
    assert not training.use_liger_kernel  # else the trainer would patch a model it does not know
