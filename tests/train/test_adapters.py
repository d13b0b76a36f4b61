"""Adapters: what is trained, apart from its base and merged into it; rows of new tokens alone."""

from __future__ import annotations

import json
import shutil
import socket
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.cli import main
from distime.model.adapter import CONFIG, WEIGHTS, read
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
    rows = "base_model.model.model.language_model.embed_tokens.token_adapter.trainable_tokens_delta"
    assert tensors[rows].shape == (2, 32)
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
            if mode == "full":
                weight = module.weight.grad[rows]
            else:
                weight = module.token_adapter.trainable_tokens_delta["default"].grad
                assert module.token_adapter.base_layer.weight.grad is None
            assert weight.abs().sum() > 0
            gradients[mode, name] = weight
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
    assert "has no adapter_config.json" in capsys.readouterr().err

    description = json.loads((adapter / CONFIG).read_text())
    moved = description | {"base_model_name_or_path": str(tmp_path / "moved")}
    (adapter / CONFIG).write_text(json.dumps(moved))
    with pytest.raises(CheckpointError, match="is not there; name the base with `distime merge"):
        DisTimeForConditionalGeneration.from_pretrained(adapter)
    assert main(["merge", str(workspace / "tiny"), str(adapter), str(tmp_path / "x")]) == 0


FLAGS = {
    "LoRA": {"freeze_llm": True, "freeze_backbone": True, "freeze_mlp": True, "use_llm_lora": 4},
    "LoRA and projector": {"freeze_llm": True, "freeze_backbone": True, "use_llm_lora": 2},
    "projector": {"freeze_llm": True, "freeze_backbone": True},
    "all but the tower": {"freeze_backbone": True},
    "tower and time": {"freeze_llm": True, "freeze_mlp": True},
}


@pytest.fixture(params=FLAGS)
def trained(request, tmp_path):
    """A function that writes a base and an adapter, and gives the model in training."""

    def make(tied, mode, dtype=torch.float32):
        base = tmp_path / "base"
        model = make_tiny_model(tie_word_embeddings=tied).to(dtype)
        model.save_pretrained(base)
        arguments = ModelArguments(str(base), train_embeddings=mode, **FLAGS[request.param])
        select_trainable(model, arguments)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)
        Exporter(model, _NoProcessor(), arguments).write_adapter(tmp_path / "adapter")
        return model.eval(), base, tmp_path / "adapter"

    return make


def logits(model):
    ids = torch.arange(5, 40)[None]
    ids[0, 3], ids[0, 7], ids[0, 8] = *new_token_ids(model.config), model.config.image_token_id
    pixels = torch.linspace(-1, 1, 3 * 8 * 8, dtype=model.dtype).view(1, 3, 8, 8)
    with torch.no_grad():
        return model(
            input_ids=ids, pixel_values=pixels, frame_times=torch.tensor([0.5])
        ).logits.float()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("mode", ["full", "new_rows", "none"])
def test_peft_alone_loads_what_training_writes(trained, tied, mode):
    model, base, folder = trained(tied, mode)
    expected = logits(model)
    ours = DisTimeForConditionalGeneration.from_pretrained(folder).eval()
    torch.testing.assert_close(logits(ours), expected, rtol=1e-4, atol=1e-4)
    assert ours.config.tie_word_embeddings == tied
    assert all(parameter.requires_grad for parameter in ours.parameters())

    plain = DisTimeForConditionalGeneration.from_pretrained(base)
    assert not torch.allclose(logits(plain.eval()), expected, atol=1e-2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # between PEFT and transformers
        theirs = PeftModel.from_pretrained(plain, folder).eval()
    torch.testing.assert_close(logits(theirs), expected, rtol=1e-4, atol=1e-4)
    ids = torch.full((1, 4), new_token_ids(ours.config)[0])
    wanted = {"max_new_tokens": 4, "return_dict_in_generate": True}
    one, other = (m.generate(input_ids=ids, **wanted) for m in (ours, theirs))
    assert torch.equal(one.sequences, other.sequences)
    merged = theirs.merge_and_unload()
    torch.testing.assert_close(logits(merged), logits(ours), rtol=0, atol=3e-6)


@pytest.mark.parametrize("mode", ["full", "new_rows", "none"])
def test_an_adapter_is_merged_in_float32_and_rounded_once(trained, mode):
    model, base, folder = trained(False, mode, torch.bfloat16)
    found = read(folder)
    ours = DisTimeForConditionalGeneration.from_pretrained(folder)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    state = DisTimeForConditionalGeneration.from_pretrained(base).state_dict()
    for name, tensor in ours.state_dict().items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{prefix}.lora_A.weight" in found.tensors:
            a, b = (found.tensors[f"{prefix}.lora_{part}.weight"].float() for part in "AB")
            expected = (state[name].float() + 2 * (b @ a)).bfloat16()
            assert torch.equal(tensor, expected), name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("mode", ["full", "new_rows", "none"])
def test_adapters_in_the_format_before_pefts_still_load(trained, tmp_path, tied, mode):
    model, _, folder = trained(tied, mode)
    new = read(folder)
    tensors = {}
    for name, tensor in new.tensors.items():
        name = name.removeprefix("base_model.model.")
        if tied and mode == "full" and name == EMBEDDINGS[1]:
            continue
        for part in "AB":
            name = name.replace(f".lora_{part}.weight", f".lora_{part}.default.weight")
        tensors[name.replace(".token_adapter.trainable_tokens_delta", ".new_rows")] = tensor
    old = tmp_path / "old"
    old.mkdir()
    save_file(tensors, old / "adapter.safetensors")
    lora = any(".lora_A." in name for name in tensors)
    description = {
        "base": new.base, "config_overrides": {}, "lora_scale": 2.0 if lora else None,
        "new_token_ids": new_token_ids(model.config), "dtype": "float32",
        "base_digest": new.base_digest,
    }  # fmt: skip
    (old / "adapter.json").write_text(json.dumps(description))
    one, other = map(DisTimeForConditionalGeneration.from_pretrained, (folder, old))
    for (name, tensor), again in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, again), name
    assert other.config.tie_word_embeddings == tied
    (old / "adapter.json").write_text(json.dumps(description | {"base_digest": "another"}))
    with pytest.raises(CheckpointError, match="are others"):
        DisTimeForConditionalGeneration.from_pretrained(old)


def test_an_adapter_of_peft_alone(tmp_path, monkeypatch, caplog):
    """One that was trained outside: with other options, and without our record of the base."""
    model = make_tiny_model()
    model.save_pretrained(tmp_path / "base")
    config = LoraConfig(
        r=4, use_rslora=True, use_dora=True, target_modules=["q_proj", "up_proj"],
        init_lora_weights=False,
    )  # fmt: skip
    outside = get_peft_model(model, config).eval()
    expected = logits(outside)
    outside.peft_config["default"].base_model_name_or_path = "someone/else"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # PEFT finds no such base either
        outside.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)

    def no_network(*_):
        raise AssertionError("asks the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(CheckpointError, match="an adapter of someone/else, which is not there"):
        DisTimeForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    ours = DisTimeForConditionalGeneration.from_pretrained(
        tmp_path / "adapter", adapter_base=tmp_path / "base"
    )
    assert "does not say which weights it was trained on" in caplog.text
    torch.testing.assert_close(logits(ours.eval()), expected, rtol=1e-4, atol=1e-4)


def _without(name):
    def damage(folder):
        tensors = load_file(folder / WEIGHTS)
        save_file({n: t for n, t in tensors.items() if name not in n}, folder / WEIGHTS)

    return damage


def _cut(name):
    def damage(folder):
        tensors = load_file(folder / WEIGHTS)
        save_file({n: t[:1].clone() if name in n else t for n, t in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip

    return damage


def _write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("lora_B"), "its tensors are not those of its configuration and base: .*lora_B"),
        (_without("time_decoder"), "tensors are not those .*time_decoder"),
        (_cut("up_proj.lora_B"), "(?s)does not fit its base: .*size mismatch"),
        (_write(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS}: the file is missing"),
        (_write(CONFIG, b"<!DOCTYPE html>"), f"{CONFIG} is a web page"),
        (_write(CONFIG, b'{"peft_type": "FUTURE"}'), "no adapter that PEFT knows"),
        (_write(CONFIG, b"{}"), "no adapter that PEFT knows"),
        (_write("distime_adapter.json", b'{"a": 1}'), "expected the fields"),
    ],
)
def test_damaged_adapters(tmp_path, damage, message):
    model = make_tiny_model()
    model.save_pretrained(tmp_path / "base")
    arguments = ModelArguments(str(tmp_path / "base"), freeze_llm=True, use_llm_lora=4)
    select_trainable(model, arguments)
    Exporter(model, _NoProcessor(), arguments).write_adapter(tmp_path / "adapter")
    DisTimeForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        DisTimeForConditionalGeneration.from_pretrained(tmp_path / "adapter")


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
