"""Adapters: what is trained, apart from its base and merged into it; rows of new tokens alone."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.cli import main
from distime.model.adapter import DESCRIPTION, WEIGHTS
from distime.model.weights import CheckpointError
from distime.train.arguments import ModelArguments
from distime.train.export import Exporter
from distime.train.lora import new_token_ids, select_trainable
from tiny_models import make_tiny_model
from tiny_runs import parameters, train

LORA = (
    "--use_llm_lora", 2, "--freeze_llm", True, "--freeze_backbone", True, "--freeze_mlp", True,
    "--max_steps", 2, "--per_device_train_batch_size", 4,
)  # fmt: skip
EMBEDDINGS = ("model.language_model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def untied(workspace):
    """The base checkpoint with an output head of its own."""
    folder = workspace / "untied"
    shutil.copytree(workspace / "tiny", folder)
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight + 0.01)
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def said_tied(workspace, untied):
    """The same, with a configuration that says otherwise."""
    folder = workspace / "said tied"
    shutil.copytree(untied, folder)
    shutil.copy(workspace / "tiny" / "config.json", folder)
    return folder


@pytest.fixture(params=["tied", "untied", "said_tied"])
def base(request, workspace):
    if request.param == "tied":
        return workspace / "tiny"
    return request.getfixturevalue(request.param)


@pytest.mark.smoke
@pytest.mark.parametrize("mode", ["full", "new_rows", "none"])
def test_merged_adapter_is_the_full_export(workspace, base, tmp_path, mode, capsys):
    train(workspace, tmp_path, *LORA, "--model_name_or_path", base, "--export", "both",
          "--train_embeddings", mode)  # fmt: skip
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    assert main(["merge", str(base), str(adapter), str(merged)]) == 0
    weights = (merged / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "model.safetensors").read_bytes()
    assert (merged / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()
    full = parameters(tmp_path)
    for name, parameter in parameters(adapter).items():  # merged on loading
        assert torch.equal(parameter, full[name]), name
    DisTimeProcessor.from_pretrained(adapter)

    before = parameters(base)
    rows = new_token_ids(DisTimeForConditionalGeneration.from_pretrained(base).config)
    old = [index for index in range(len(before[EMBEDDINGS[0]])) if index not in rows]
    for name in EMBEDDINGS:
        if name not in full:
            continue
        changed = (full[name] != before[name]).any(-1)
        assert changed[old].any() == (mode == "full"), name
        # As input the new tokens always have the embedding of their time instead.
        is_used = name == EMBEDDINGS[-1] or EMBEDDINGS[-1] not in full
        assert changed[rows].any() == (mode != "none" and is_used), name
    small, whole = (
        path.stat().st_size for path in (adapter / WEIGHTS, merged / "model.safetensors")
    )
    assert small < whole / 2


def test_only_new_rows_take_part_in_training(workspace, tmp_path, caplog):
    flags = (*LORA, "--save_strategy", "steps", "--save_steps", 1)
    train(workspace, tmp_path, *flags, "--train_embeddings", "new_rows", "--weight_decay", 0.5,
          "--gradient_checkpointing", True)  # fmt: skip
    tensors = load_file(tmp_path / "checkpoint-2" / WEIGHTS)
    trained = sum(tensor.numel() for tensor in tensors.values())
    assert f"training {trained:,} of " in caplog.text
    assert tensors["model.language_model.embed_tokens.new_rows"].shape == (2, 32)
    states = torch.load(tmp_path / "checkpoint-2" / "optimizer.pt", weights_only=True)["state"]
    assert sum(state["exp_avg"].numel() for state in states.values()) == trained
    # A checkpoint of the run is an adapter too.
    full = parameters(tmp_path)
    for name, parameter in parameters(tmp_path / "checkpoint-2").items():
        assert torch.equal(parameter, full[name]), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mode", ["full", "new_rows"])
def test_merged_model_answers_as_the_one_in_training(tmp_path, tied, mode):
    model = make_tiny_model(tie_word_embeddings=tied)
    arguments = ModelArguments(
        str(_with_config(tmp_path)), freeze_llm=True, use_llm_lora=4, train_embeddings=mode
    )
    select_trainable(model, arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.eval()
    ids = torch.arange(5, 40)[None]
    ids[0, 3], ids[0, 7] = new_token_ids(model.config)
    expected = model(input_ids=ids, frame_times=torch.tensor([0.5])).logits
    Exporter(model, _NoProcessor(), arguments).write_full(tmp_path / "full")
    plain = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "full").eval()
    assert (
        plain.state_dict().keys() == make_tiny_model(tie_word_embeddings=tied).state_dict().keys()
    )
    actual = plain(input_ids=ids, frame_times=torch.tensor([0.5])).logits
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_get_the_gradients_that_they_have_in_the_full_matrices(tmp_path, tied):
    ids = torch.arange(5, 40)[None].repeat(2, 1)
    labels = ids.clone()
    gradients = {}
    for mode in ("full", "new_rows"):
        model = make_tiny_model(tie_word_embeddings=tied).train()
        rows = new_token_ids(model.config)
        ids[0, 3], labels[0, 3] = rows[0], -100
        targets = torch.full((1, 2), torch.nan)  # the token keeps its own embedding
        arguments = ModelArguments(str(_with_config(tmp_path)), train_embeddings=mode)
        select_trainable(model, arguments)
        model(input_ids=ids, labels=labels, time_targets=targets).text_loss.backward()
        for name in ("model.language_model.embed_tokens", "lm_head"):
            module = model.get_submodule(name)
            weight = module.weight.grad[rows] if mode == "full" else module.new_rows.grad
            assert weight.abs().sum() > 0
            gradients[mode, name] = weight
        assert (module.weight.grad is None) == (mode == "new_rows")
    for (mode, name), gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients["full", name], msg=f"{mode} {name}")


def test_an_adapter_knows_its_base(workspace, untied, tmp_path, capsys):
    train(workspace, tmp_path, *LORA, "--export", "adapter", "--train_embeddings", "none")
    assert not (tmp_path / "config.json").exists()
    adapter = tmp_path / "adapter"
    other = tmp_path / "other"
    shutil.copytree(workspace / "tiny", other)
    tensors = load_file(other / "model.safetensors")
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name] + 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert main(["merge", str(other), str(adapter), str(tmp_path / "x")]) == 1
    assert "the weights it is to be applied to are others" in capsys.readouterr().err
    assert main(["merge", str(other), str(untied), str(tmp_path / "x")]) == 1
    assert "has no adapter.json" in capsys.readouterr().err

    description = json.loads((adapter / DESCRIPTION).read_text())
    moved = description | {"base": str(tmp_path / "moved")}
    (adapter / DESCRIPTION).write_text(json.dumps(moved))
    with pytest.raises(CheckpointError, match="is not there; name the base with `distime merge"):
        DisTimeForConditionalGeneration.from_pretrained(adapter)
    assert main(["merge", str(workspace / "tiny"), str(adapter), str(tmp_path / "x")]) == 0


@pytest.mark.parametrize(("given", "mode"), [(True, "full"), ("False", "none"), ("new_rows",) * 2])
def test_train_embeddings_takes_the_published_flag(tmp_path, given, mode):
    arguments = ModelArguments(str(_with_config(tmp_path)), train_embeddings=given)
    assert arguments.train_embeddings == mode


def _with_config(folder):
    (folder / "config.json").write_text("{}")
    return folder


class _NoProcessor:
    def save_pretrained(self, folder):
        pass
