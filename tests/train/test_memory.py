"""Frozen weights in half the bytes, and activations that are recomputed only where they must be."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from distime import DisTimeForConditionalGeneration
from distime.train import finetune, memory, speed
from distime.train.arguments import ModelArguments, TrainArguments
from distime.train.lora import select_trainable
from distime.train.trainer import DisTimeTrainer

LORA = {"freeze_llm": True, "freeze_backbone": True, "freeze_mlp": True, "use_llm_lora": 4}


def losses(workspace, out, *flags):
    """Losses of two steps in bfloat16, and the model at the end."""
    arguments = {
        "--model_name_or_path": workspace / "tiny", "--meta_path": workspace / "meta.json",
        "--output_dir": out, "--use_cpu": True, "--report_to": "none", "--save_strategy": "no",
        "--min_num_frame": 4, "--max_num_frame": 4, "--learning_rate": 1e-3, "--max_steps": 2,
        "--logging_steps": 1, "--disable_tqdm": True, "--dataloader_num_workers": 0,
        "--sampling_method": "middle", "--per_device_train_batch_size": 4, "--bf16": True,
        "--lora_dropout": 0,
    } | {f"--{name}": value for name, value in LORA.items()}  # fmt: skip
    argv = [str(word) for pair in arguments.items() for word in pair] + [str(f) for f in flags]
    lines, models, log = [], [], DisTimeTrainer.log

    def note(self, logs, *args, **kwargs):
        lines.append(logs)
        models.append(self.model)
        log(self, logs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DisTimeTrainer, "log", note)
        assert finetune.main(argv) == 0
    return [line["loss"] for line in lines if "loss" in line], lines, models[-1]


def test_frozen_weights_are_half_as_large_and_losses_as_they_were(workspace, tmp_path, monkeypatch):
    questions = tmp_path / "held_out.jsonl"
    first = (workspace / "train.jsonl").read_text().splitlines()[0]
    item = json.loads(first) | {"video": str(workspace / json.loads(first)["video"])}
    questions.write_text(json.dumps(item) + "\n")
    narrow, lines, model = losses(workspace, tmp_path / "narrow", "--eval_path", questions)
    assert any("eval_miou" in line for line in lines)  # also answers with weights of two types
    for name, parameter in model.named_parameters():
        expected = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == expected, name

    with monkeypatch.context() as patch:
        patch.setattr(speed, "narrow_frozen", lambda *_, **__: None)
        wide, _, before = losses(workspace, tmp_path / "wide")
    assert narrow == pytest.approx(wide, rel=5e-3)
    frozen, frozen_before = (
        sum(p.nbytes for p in one.parameters() if not p.requires_grad) for one in (model, before)
    )
    assert 2 * frozen == frozen_before

    # Both results have the same frozen weights: those of the start checkpoint in bfloat16.
    results = [
        DisTimeForConditionalGeneration.from_pretrained(tmp_path / out).state_dict()
        for out in ("narrow", "wide")
    ]
    tower = [name for name in results[0] if "vision_tower" in name]
    assert all(torch.equal(results[0][name], results[1][name]) for name in tower)


def test_no_frozen_weight_is_rounded_that_the_result_is_to_have_in_full(workspace):
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny")
    model.requires_grad_(False)
    layers = model.model.language_model.layers
    layers[0].to(torch.bfloat16).to(torch.float32)
    speed.narrow_frozen(model, exact=True)
    assert layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert layers[1].mlp.up_proj.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("gib", "flags", "recomputes", "advice"),
    [
        (80, {}, False, "as it is"),
        (80, {"gradient_checkpointing": True}, True, "without --gradient_checkpointing a step is"),
        (80, {"gradient_checkpointing": True, "recompute_if_needed": True}, False, "are kept"),
        (1e-3, {"gradient_checkpointing": True, "recompute_if_needed": True}, True, "so they are"),
        (1e-3, {}, False, "add --gradient_checkpointing True"),
    ],
)
def test_advice_follows_the_memory_that_is_computed(
    workspace, monkeypatch, caplog, gib, flags, recomputes, advice
):
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        speed.torch.cuda,
        "get_device_properties",
        lambda _: SimpleNamespace(total_memory=int(gib * 2**30)),
    )
    training = TrainArguments(output_dir="out", use_cpu=True, **flags)
    training.use_cpu = False
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny")
    select_trainable(model, ModelArguments(str(workspace / "tiny"), **LORA))
    with caplog.at_level("INFO", "distime"):
        speed.advise(model, training, 8192)
    assert advice in caplog.text
    assert bool(speed._parts(training)) == recomputes


def test_computed_activations_are_those_that_are_kept(workspace):
    """Of attention, only what flash attention keeps is computed; here SDPA keeps the same."""
    model = DisTimeForConditionalGeneration.from_pretrained(workspace / "tiny").train()
    select_trainable(model, ModelArguments(str(workspace / "tiny"), lora_dropout=0.0, **LORA))
    found = memory.activations(model, 64)
    layers = model.model.language_model.layers
    assert found.layers == len(layers)
    assert found.inputs == len(layers) * 64 * model.config.text_config.hidden_size * 4
    assert found.kept == len(layers) * found.layer > found.recomputed
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage
        return tensor

    hidden = torch.randn(1, 64, model.config.text_config.hidden_size, requires_grad=True)
    positions = torch.arange(64).unsqueeze(0)
    angles = model.model.language_model.rotary_emb(hidden, positions)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layers[0](hidden, position_ids=positions, position_embeddings=angles)
    measured = sum(storage.nbytes() for storage in kept.values())
    assert found.layer == pytest.approx(measured, rel=0.1)
