import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, Qwen2Config

from answering import WORDS
from distime import DisTimeForConditionalGeneration
from distime.cli import main
from distime.conversion import convert
from distime.conversion_target import ConvertError
from distime.model.tokens import IMG_CONTEXT
from distime.processing.processor import DisTimeProcessor, ProcessorSettings
from distime.processing.tokenizer import add_special_tokens, encode, load_tokenizer
from distime.toy.tiny import write_tiny_checkpoint
from tiny_models import tiny_config
from tiny_tokenizers import write_internlm2, write_qwen2

FILES = {
    "qwen2": {"vocab.json", "merges.txt"},
    "internlm2": {"tokenizer.model"},
}
TEXT = "<|im_start|>user\nWhen does <TIME_STAMP> occur?<img></img> The  door 你好.<|im_end|>\n"


def write_ours(folder, family, dtype=torch.float32):
    """A random model in our layout, with a tokenizer of the published kind."""
    (write_qwen2 if family == "qwen2" else write_internlm2)(folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    add_special_tokens(tokenizer)
    settings = ProcessorSettings(image_size=8, patch_size=4, num_frames=5, system_message="hi")
    processor = DisTimeProcessor(tokenizer, settings)
    ids = processor.token_ids
    text = (Qwen2Config if family == "qwen2" else LlamaConfig)(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=ids.pad,
    )  # fmt: skip
    config = tiny_config(
        text_config=text.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids(IMG_CONTEXT),
        time_token_id=ids.time_stamp,
        frame_time_token_id=ids.frame_time_ref,
    )
    torch.manual_seed(0)
    model = DisTimeForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.generation_config.eos_token_id = ids.im_end
    model.generation_config.pad_token_id = ids.pad
    model.to(dtype).save_pretrained(folder / "ours")
    processor.save_pretrained(folder / "ours")
    return folder / "ours"


def tensors(folder):
    return {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def state(folder):
    """Tensors by the model's own names; files of our layout may use those of older InternVLs."""
    return DisTimeForConditionalGeneration.from_pretrained(folder).state_dict()


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype and torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FILES)
def test_round_trip_is_bit_exact(tmp_path, family, dtype, capsys):
    ours = write_ours(tmp_path, family, dtype)
    there, back, again = (tmp_path / name for name in ("there", "back", "again"))
    assert main(["convert", str(ours), str(there), "--to", "published"]) == 0
    assert main(["convert", str(there), str(back)]) == 0
    assert main(["convert", str(back), str(again), "--to", "published"]) == 0
    assert capsys.readouterr().out.count("read back and found equal") == 3

    assert json.loads((there / "config.json").read_text())["model_type"] == "internvl_chat"
    assert all(name.startswith(("vision_model", "mlp1", "language_model", "time_"))
               for name in tensors(there))  # fmt: skip
    assert_same_tensors(state(ours), state(back))
    assert_same_tensors(tensors(there), tensors(again))

    common = {"added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"}
    files = {path.name for path in there.iterdir()}
    assert common | FILES[family] <= files
    assert "tokenizer.json" not in files
    for name in common | FILES[family]:
        assert (there / name).read_bytes() == (again / name).read_bytes()

    processors = [DisTimeProcessor.from_pretrained(folder) for folder in (ours, there, back)]
    expected = encode(processors[0].tokenizer, TEXT)
    for one in processors:
        assert one.settings == processors[0].settings
        assert encode(one.tokenizer, TEXT) == expected
    models = [DisTimeForConditionalGeneration.from_pretrained(f) for f in (ours, there, back)]
    for model in models:
        assert model.generation_config.eos_token_id == processors[0].token_ids.im_end


@pytest.mark.parametrize("family", FILES)
def test_published_tokenizer_files_alone_give_the_same_ids(tmp_path, family):
    """What the published code reads knows nothing of our own files."""
    ours = write_ours(tmp_path, family)
    convert(ours, tmp_path / "there", "published")
    (tmp_path / "there" / "processor_config.json").unlink()
    tokenizer = load_tokenizer(tmp_path / "there")
    assert add_special_tokens(tokenizer) == 0
    assert encode(tokenizer, TEXT) == encode(load_tokenizer(ours), TEXT)
    config = json.loads((tmp_path / "there" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] in ("Qwen2Tokenizer", "InternLM2Tokenizer")
    original = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    for key, value in original["added_tokens_decoder"].items():
        assert config["added_tokens_decoder"][key] == value
    for key in ("eos_token", "pad_token", "bos_token", "unk_token"):
        assert config[key] == original[key]


def test_the_quickstarts_checkpoint_with_tied_embeddings(tmp_path, caplog):
    write_tiny_checkpoint(tmp_path / "ours", WORDS)
    convert(tmp_path / "ours", tmp_path / "there", "published")
    assert "neither Qwen2's nor InternLM2's tokenizer" in caplog.text
    convert(tmp_path / "there", tmp_path / "back")
    assert_same_tensors(state(tmp_path / "ours"), state(tmp_path / "back"))


def test_large_weights_are_sharded(tmp_path):
    ours = write_ours(tmp_path, "qwen2")
    convert(ours, tmp_path / "there", "published", max_shard_size=20_000)
    shards = sorted((tmp_path / "there").glob("*.safetensors"))
    assert len(shards) > 2 and (tmp_path / "there" / "model.safetensors.index.json").is_file()
    convert(tmp_path / "there", tmp_path / "back", max_shard_size=20_000)
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 2
    assert_same_tensors(state(ours), state(tmp_path / "back"))


@pytest.mark.golden
def test_lora_is_merged(golden_root, tmp_path):
    convert(golden_root / "qwen2_lora" / "checkpoint", tmp_path / "merged", "published")
    merged = tensors(tmp_path / "merged")
    expected = tensors(golden_root / "qwen2_lora_merged" / "checkpoint")
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(merged[name], tensor, atol=1e-6), name


@pytest.mark.golden
def test_a_base_checkpoint_starts_the_same_from_the_same_seed(golden_root, tmp_path):
    base = golden_root / "qwen2_base" / "checkpoint"
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        convert(base, tmp_path / name, seed=seed)
    a, b, c = (tensors(tmp_path / name) for name in "abc")
    assert_same_tensors(a, b)
    assert not torch.equal(a["time_decoder.layers.0.weight"], c["time_decoder.layers.0.weight"])
    assert torch.equal(a["lm_head.weight"], c["lm_head.weight"])


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    ours = write_ours(tmp_path, "qwen2")
    target = tmp_path / "target"
    target.mkdir()
    convert(ours, target)  # an empty folder is no loss
    (target / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    assert main(["convert", str(ours), str(target)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["convert", str(ours), str(target), "--overwrite", "--to", "published"]) == 0
    assert not (target / "model-00001-of-00002.safetensors").exists()

    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").touch()
    with pytest.raises(ConvertError, match="holds no checkpoint"):
        convert(ours, other, overwrite=True)
    assert (other / "me.jpg").exists()
    with pytest.raises(ConvertError, match="is or holds the source"):
        convert(ours, ours, overwrite=True)
    with pytest.raises(ConvertError, match="is or holds the source"):
        convert(ours, tmp_path, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(ConvertError, match="is a file"):
        convert(ours, tmp_path / "file")


def test_failures_leave_nothing_behind(tmp_path, monkeypatch, capsys):
    ours = write_ours(tmp_path, "qwen2")
    before = set(tmp_path.iterdir())
    config = json.loads((ours / "processor_config.json").read_text())
    (ours / "processor_config.json").write_text(json.dumps(config | {"image_size": 16}))
    assert main(["convert", str(ours), str(tmp_path / "x")]) == 1
    assert "does not belong to this model" in capsys.readouterr().err
    (ours / "processor_config.json").write_text(json.dumps(config))

    def write_wrongly(model, folder, *args):
        with torch.no_grad():
            model.lm_head.weight[3] += 1
        write(model, folder, *args)
        with torch.no_grad():
            model.lm_head.weight[3] -= 1

    from distime.backbones.internvl import published

    write = published.write
    monkeypatch.setattr(published, "write", write_wrongly)
    with pytest.raises(ConvertError, match=r"1 tensors do not read back equal, such as lm_head"):
        convert(ours, tmp_path / "x", "published")
    convert(ours, tmp_path / "unverified", "published", verify=False)
    assert set(tmp_path.iterdir()) == before | {tmp_path / "unverified"}


def test_a_readme_of_the_source_is_kept_and_otherwise_one_is_written(tmp_path):
    ours = write_ours(tmp_path, "qwen2")
    convert(ours, tmp_path / "my model")
    assert "# my model\n" in (tmp_path / "my model" / "README.md").read_text()
    (ours / "README.md").write_text("words")
    convert(ours, tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "words"


def mixed(tensors, parts):
    """Some tensors in float32, float16 or bfloat16, each with bits that only its type holds."""
    return {
        name: tensor.to(next((d for part, d in parts.items() if part in name), torch.bfloat16))
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize(
    "parts",
    [
        {"time_": torch.float32},
        {"vision": torch.float16, "norm": torch.float32},
        {"mlp": torch.float32, "time_": torch.float16},
    ],
)
@pytest.mark.parametrize("family", FILES)
def test_mixed_types_are_kept_tensor_by_tensor(tmp_path, family, parts, capsys):
    ours = write_ours(tmp_path, family)
    convert(ours, tmp_path / "there", "published")
    path = tmp_path / "there" / "model.safetensors"
    before = mixed(load_file(path), parts)
    save_file(before, path, {"format": "pt"})
    assert main(["convert", str(tmp_path / "there"), str(tmp_path / "back")]) == 0
    assert "read back and found equal" in capsys.readouterr().out
    convert(tmp_path / "back", tmp_path / "again", "published")
    after = tensors(tmp_path / "again")
    before.pop("time_project.project"), after.pop("time_project.project")
    assert_same_tensors(before, after)


def test_the_check_compares_with_the_source(tmp_path, monkeypatch):
    ours = write_ours(tmp_path, "qwen2")
    load = DisTimeForConditionalGeneration.from_pretrained.__func__

    def rounded(cls, *args, exact=False, **kwargs):
        return load(cls, *args, **kwargs).to(torch.bfloat16)

    with monkeypatch.context() as patched:
        patched.setattr(DisTimeForConditionalGeneration, "from_pretrained", classmethod(rounded))
        with pytest.raises(ConvertError, match="tensors do not read back equal"):
            convert(ours, tmp_path / "x")


@pytest.mark.parametrize("rows", [-1, -5])
def test_tokens_beyond_the_embedding_are_an_error_everywhere(tmp_path, rows, capsys):
    ours = write_ours(tmp_path, "qwen2")
    weights = load_file(ours / "model.safetensors")
    for name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        weights[name] = weights[name][:rows].clone()
    save_file(weights, ours / "model.safetensors", {"format": "pt"})
    config = json.loads((ours / "config.json").read_text())
    last = config["text_config"]["vocab_size"] - 1
    config["text_config"]["vocab_size"] += rows
    (ours / "config.json").write_text(json.dumps(config))
    (tmp_path / "meta.json").write_text("{}")
    for command in (
        ["convert", ours, tmp_path / "x"],
        ["check", tmp_path / "meta.json", "--checkpoint", ours],
    ):
        assert main([str(word) for word in command]) == 1
        message = capsys.readouterr().err
        assert (
            f"ids up to {last} " in message and f"embedding has {last + 1 + rows} rows" in message
        )


@pytest.mark.parametrize("name", ["time_token_id", "frame_time_token_id", "image_token_id"])
def test_token_ids_of_another_model_are_an_error_everywhere(tmp_path, name, capsys):
    ours = write_ours(tmp_path, "qwen2")
    config = json.loads((ours / "config.json").read_text())
    (ours / "config.json").write_text(json.dumps(config | {name: config[name] - 1}))
    (tmp_path / "meta.json").write_text("{}")
    for command in (
        ["convert", ours, tmp_path / "x"],
        ["check", tmp_path / "meta.json", "--checkpoint", ours],
    ):
        assert main([str(word) for word in command]) == 1
        message = capsys.readouterr().err
        assert f"is {config[name]} here, {config[name] - 1} there" in message
