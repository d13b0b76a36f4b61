"""The published layout: language models, vision towers, LoRA, shards, and what is broken."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from distime import DisTimeForConditionalGeneration
from distime.backbones.internvl import published
from distime.backbones.internvl.published import names
from distime.model.tokens import SPECIAL_TOKENS
from distime.model.weights import CheckpointError
from tiny_models import FRAME, IM_END, IMAGE, TIME, VOCABULARY, tiny_config

SPECIAL = dict(
    zip(SPECIAL_TOKENS, [30, 31, IMAGE, 32, 33, 34, 35, 36, 37, TIME, FRAME], strict=True)
)


def internlm2_config():
    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, pad_token_id=2,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},
    )  # fmt: skip
    vision = {
        "model_type": "internvl_vision", "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
        "attention_bias": False, "norm_type": "rms_norm", "use_qk_norm": True,
    }  # fmt: skip
    return tiny_config(text_config=text.to_dict(), vision_config=vision)


FAMILIES = {"qwen2": tiny_config, "internlm2": internlm2_config}


@pytest.fixture(params=FAMILIES)
def checkpoint(request, tmp_path) -> Path:
    """A random model in the published layout, with the tokenizer file that names its tokens."""
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration(FAMILIES[request.param]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    folder = tmp_path / "published"
    published.write(model, folder)
    (folder / "added_tokens.json").write_text(json.dumps(SPECIAL | {"<|im_end|>": IM_END}))
    return folder


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


def without(*names: str):
    return lambda tensors: {name: t for name, t in tensors.items() if name not in names}


def inputs() -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.tensor([[10, FRAME, IMAGE, FRAME, IMAGE, 12, TIME, 13]]),
        "pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8),
        "frame_times": torch.tensor([0.2, 0.7]),
        "time_targets": torch.tensor([[0.1, 0.6]]),
    }


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return DisTimeForConditionalGeneration.from_pretrained(folder).eval()(**inputs()).logits


def test_names_are_the_published_ones(checkpoint):
    names = set(load_file(checkpoint / "model.safetensors"))
    config = json.loads((checkpoint / "config.json").read_text())
    expected = {
        "vision_model.embeddings.class_embedding",
        "vision_model.encoder.layers.1.attn.qkv.weight",
        "mlp1.3.bias",
        "time_gen.layers.1.weight",
        "time_enc.layers.0.bias",
        "time_project.project",
    }
    if config["llm_config"]["model_type"] == "internlm2":
        expected |= {
            "language_model.output.weight",
            "language_model.model.tok_embeddings.weight",
            "language_model.model.layers.0.attention.wqkv.weight",
            "language_model.model.layers.1.feed_forward.w2.weight",
            "vision_model.encoder.layers.0.attn.q_norm.weight",
        }
        assert "vision_model.encoder.layers.0.attn.qkv.bias" not in names
        assert "vision_model.encoder.layers.0.norm1.bias" not in names
    else:
        expected |= {
            "language_model.lm_head.weight",
            "language_model.model.layers.0.self_attn.q_proj.bias",
        }
    assert expected <= names


def test_our_layout_and_back_is_bit_exact(checkpoint, tmp_path):
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "ours")
    ours = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert ours.config.time_token_id == TIME and ours.generation_config.eos_token_id == IM_END
    published.write(ours, tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (checkpoint, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype, name
    assert torch.equal(logits(checkpoint), logits(tmp_path / "ours"))


def test_bfloat16_stays_bfloat16(checkpoint, tmp_path):
    rewrite(checkpoint, lambda tensors: {n: t.bfloat16() for n, t in tensors.items()})
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    assert model.dtype == torch.bfloat16
    published.write(model, tmp_path / "back")
    before, after = (load_file(f / "model.safetensors") for f in (checkpoint, tmp_path / "back"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    assert model.dtype == torch.float32


def test_internlm2_packs_queries_key_and_value_by_kv_head():
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    # head_dim 1, so that row numbers are heads: 0 1 | 4 | 6 belong to the first kv head.
    packed = torch.tensor([0, 1, 4, 6, 2, 3, 5, 7]).float()[:, None]
    q, k, v = names._split_wqkv(packed, config)
    assert (q.flatten().tolist(), k.flatten().tolist(), v.flatten().tolist()) == (
        [0, 1, 2, 3],
        [4, 5],
        [6, 7],
    )
    assert torch.equal(names._join_wqkv(q, k, v, config), packed)


def test_padding_row_of_internlm2_gets_no_gradient(tmp_path):
    model = DisTimeForConditionalGeneration(internlm2_config()).train()
    ids = torch.tensor([[10, 2, 12, 13]])
    with pytest.raises(ValueError, match="<IMG_CONTEXT>"):
        model(input_ids=ids)  # id 2 is the image token of the tiny model
    model.config.image_token_id = 38
    model(input_ids=ids, labels=ids).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert not gradient[2].any() and gradient[12].any()


@pytest.mark.parametrize("form", ["sharded safetensors", "bin", "sharded bin"])
def test_forms_of_the_weights(checkpoint, form):
    expected = logits(checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    bin_form = form.endswith("bin")
    name = "pytorch_model.bin" if bin_form else "model.safetensors"
    stem, suffix = name.split(".")
    write = torch.save if bin_form else save_file
    if form == "bin":
        write(tensors, checkpoint / name)
    else:
        names = sorted(tensors)
        shards = {f"{stem}-{i + 1:05d}-of-00002.{suffix}": names[i::2] for i in range(2)}
        for shard, members in shards.items():
            write({member: tensors[member] for member in members}, checkpoint / shard)
        weight_map = {member: shard for shard, members in shards.items() for member in members}
        (checkpoint / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(logits(checkpoint), expected)


def wrap_in_lora(tensors: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """The same model as a LoRA checkpoint: adapted layers W, A, B with W + 2 B A = old W."""
    wrapped = {}
    for name, tensor in tensors.items():
        plain = name.replace("language_model.", "language_model.base_model.model.", 1)
        if not name.startswith("language_model.model.layers.") or tensor.ndim < 2:
            is_bias = ".layers." in name and name.endswith("_proj.bias")
            wrapped[plain.replace(".bias", ".base_layer.bias") if is_bias else plain] = tensor
            continue
        layer = plain.removesuffix(".weight")
        a, b = torch.randn(rank, tensor.shape[1]) * 0.1, torch.randn(tensor.shape[0], rank) * 0.1
        wrapped[f"{layer}.base_layer.weight"] = tensor - 2 * b @ a
        wrapped[f"{layer}.lora_A.default.weight"] = a
        wrapped[f"{layer}.lora_B.default.weight"] = b
    return wrapped


def test_unmerged_lora_is_merged(checkpoint):
    expected = logits(checkpoint)
    rewrite(checkpoint, lambda tensors: wrap_in_lora(tensors, rank=4))
    config = json.loads((checkpoint / "config.json").read_text()) | {"use_llm_lora": 4}
    (checkpoint / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(logits(checkpoint), expected, rtol=1e-4, atol=1e-5)


def test_lora_rank_that_contradicts_the_config(checkpoint):
    rewrite(checkpoint, lambda tensors: wrap_in_lora(tensors, rank=4))
    config = json.loads((checkpoint / "config.json").read_text()) | {"use_llm_lora": 16}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"use_llm_lora=16, but .*lora_A.* has rank 4"):
        logits(checkpoint)


def test_base_checkpoint_starts_its_time_modules_fresh(checkpoint):
    def without_time(tensors):
        kept = {n: t for n, t in tensors.items() if not n.startswith("time_")}
        head = next(n for n in kept if n.endswith(("lm_head.weight", "output.weight")))
        return kept | {head: kept[head].clone()}

    rewrite(checkpoint, without_time)
    tokens = {token: i for token, i in SPECIAL.items() if i not in (TIME, FRAME)}
    tokens |= {"<|im_end|>": IM_END, "last": VOCABULARY - 1}
    (checkpoint / "added_tokens.json").write_text(json.dumps(tokens))
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    assert model.config.time_token_id == VOCABULARY
    assert model.config.frame_time_token_id == VOCABULARY + 1
    head = model.lm_head.weight
    assert len(head) == len(model.get_input_embeddings().weight) == VOCABULARY + 2
    torch.testing.assert_close(head[-1], head[:VOCABULARY].mean(0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("mlp1.1.weight"), r"missing: model.multi_modal_projector.linear_1"),
        (lambda t: t | {"mlp1.9.weight": torch.zeros(1)}, r"unexpected tensors: mlp1.9.weight"),
        (lambda t: t | {"mlp1.1.bias": torch.zeros(7)}, r"wrong shape: .*linear_1.bias"),
        (without("time_gen.layers.0.bias"), r"missing: time_decoder.layers.0.bias"),
        (lambda t: t | {"time_project.project": torch.ones(9)}, r"project is not 0, 1"),
    ],
)
def test_tensors_that_do_not_fit(checkpoint, damage, message):
    rewrite(checkpoint, damage)
    with pytest.raises(CheckpointError, match=message):
        logits(checkpoint)


def test_missing_tensors_of_our_own_layout(checkpoint, tmp_path):
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "ours")
    rewrite(tmp_path / "ours", without("time_encoder.layers.0.weight"))
    with pytest.raises(CheckpointError, match="missing: time_encoder.layers.0.weight"):
        logits(tmp_path / "ours")


def test_damaged_files(checkpoint, tmp_path):
    def broken(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(checkpoint, folder)
        return folder

    folder = broken("no weights")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="looked for model.safetensors, pytorch_model.bin"):
        logits(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "shard.safetensors"}}')
    with pytest.raises(CheckpointError, match="shard.safetensors: the shard is missing"):
        logits(folder)
    index.write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(CheckpointError, match="not a plain file name"):
        logits(folder)

    folder = broken("truncated")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged or unreadable"):
        logits(folder)

    folder = broken("pickle")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Path("a")))
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        logits(folder)

    folder = broken("tokenizer")
    (folder / "added_tokens.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer file there names <IMG_CONTEXT>"):
        logits(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": 2}))
    with pytest.raises(CheckpointError, match="its tokenizer lacks <img>"):
        logits(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ps_version": "v1"}, "ps_version='v1'; only 'v2'"),
        ({"llm_config": {"model_type": "gpt2"}}, "language model 'gpt2' is not supported"),
        ({"vision_config": None}, "has no vision_config"),
    ],
)
def test_configs_that_are_not_supported(checkpoint, change, message):
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        logits(checkpoint)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1877468752\n"
PAGE = b"\n<!DOCTYPE html><html><body>Sign in to download</body></html>"


@pytest.mark.parametrize("layout", ["published", "ours"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "pointer of git-lfs.*git lfs pull"),
        (PAGE, "is a web page"),
        (b"", "is empty"),
        (b"\x00" * 100, "damaged"),
        (b"no tensors at all" * 9, "damaged"),
    ],
    ids=["lfs", "page", "empty", "zeros", "text"],
)
def test_what_is_no_file_of_weights_says_what_it_is(
    checkpoint, tmp_path, layout, name, content, message
):
    folder = checkpoint
    if layout == "ours":
        folder = tmp_path / "ours"
        DisTimeForConditionalGeneration.from_pretrained(checkpoint).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}:? .*{message}") as raised:
        logits(folder)
    assert "run code" not in str(raised.value)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_cut_files_of_our_own_layout(checkpoint, tmp_path, form, kept):
    DisTimeForConditionalGeneration.from_pretrained(checkpoint).save_pretrained(tmp_path)
    whole = tmp_path / "model.safetensors"
    if form.endswith(".bin"):
        torch.save(load_file(whole), tmp_path / form)
        whole.unlink()
    data = (tmp_path / form).read_bytes()
    (tmp_path / form).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match=f"{form}: damaged"):
        logits(tmp_path)


def test_an_index_that_names_missing_shards_or_tensors(checkpoint, tmp_path):
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path, max_shard_size=20_000)
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["more"] = next(iter(values["weight_map"].values()))
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="its shards lack more"):
        logits(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    for shard in shards[:2]:
        shard.unlink()
    with pytest.raises(CheckpointError, match=rf"shard is missing.*2 of {len(shards)}"):
        logits(tmp_path)


@pytest.mark.parametrize("content", [LFS, PAGE, b"", b"[1]", b"\xff\xfe"])
def test_a_config_that_is_none(checkpoint, content):
    (checkpoint / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        logits(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids | {"beyond": 90}, "ids up to 90 .beyond., but its embedding has 40 rows"),
        (lambda ids: ids | {"<TIME_STAMP>": 40}, "ids up to 40 .*embedding has 40 rows"),
    ],
)
def test_token_ids_beyond_the_embedding(checkpoint, change, message):
    ids = json.loads((checkpoint / "added_tokens.json").read_text())
    (checkpoint / "added_tokens.json").write_text(json.dumps(change(ids)))
    with pytest.raises(CheckpointError, match=message):
        logits(checkpoint)


def test_a_vocabulary_that_the_weights_do_not_have(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    config["llm_config"]["vocab_size"] = VOCABULARY + 24
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="vocab_size 64, but the embedding has 40 rows"):
        logits(checkpoint)


def test_tokenizer_files_that_contradict_one_another(checkpoint):
    decoder = {"7": {"content": "<TIME_STAMP>"}}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    with pytest.raises(CheckpointError, match="<TIME_STAMP> is 7, but another tokenizer file"):
        logits(checkpoint)


def test_rounding_that_nobody_asked_for_is_said(checkpoint, caplog):
    def halved(tensors):
        return {n: t if n.startswith("time_") else t.bfloat16() for n, t in tensors.items()}

    rewrite(checkpoint, halved)
    model = DisTimeForConditionalGeneration.from_pretrained(checkpoint)
    assert model.time_decoder.layers[0].weight.dtype == torch.bfloat16
    assert "are torch.float32 in the files and were rounded to torch.bfloat16" in caplog.text
    caplog.clear()
    exact = DisTimeForConditionalGeneration.from_pretrained(checkpoint, exact=True)
    assert exact.time_decoder.layers[0].weight.dtype == torch.float32
    assert exact.lm_head.weight.dtype == torch.bfloat16
    DisTimeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert "rounded" not in caplog.text
