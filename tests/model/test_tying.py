"""Head and embedding: one matrix or two, as the tensors say and not as the configuration does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distime import DisTimeForConditionalGeneration
from distime.backbones.internvl import published
from distime.conversion import convert
from distime.toy.tiny import write_tiny_checkpoint

HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
PUBLISHED = {
    HEAD: "language_model.lm_head.weight",
    EMBEDDING: "language_model.model.embed_tokens.weight",
}


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> dict[str, Path]:
    """One tied checkpoint in both layouts."""
    folder = tmp_path_factory.mktemp("tied")
    write_tiny_checkpoint(folder / "distime", ["a b"], hidden_size=32, num_layers=1)
    convert(folder / "distime", folder / "published", "published", verify=False)
    return {layout: folder / layout for layout in ("distime", "published")}


def rewritten(source: Path, target: Path, form: str, change) -> Path:
    """Copy a checkpoint with other tensors, in one file, as shards or as `.bin`."""
    tensors = change(load_file(source / "model.safetensors"))
    target.mkdir()
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    if form == "bin":
        torch.save(tensors, target / "pytorch_model.bin")
        return target
    shards = 2 if form == "sharded" else 1
    weight_map = {}
    for number in range(shards):
        names = sorted(tensors)[number::shards]
        name = f"model-{number}.safetensors" if shards > 1 else "model.safetensors"
        save_file({n: tensors[n].clone() for n in names}, target / name, {"format": "pt"})
        weight_map |= dict.fromkeys(names, name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


def with_head(layout: str, how: str):
    """Change the tensors of a tied checkpoint: a head of its own, an equal one, or one name."""

    def change(tensors):
        head, embedding = (
            (PUBLISHED[name] if layout == "published" else name) for name in (HEAD, EMBEDDING)
        )
        matrix = tensors.pop(head, tensors.get(embedding))
        tensors.pop(embedding, None)
        if how == "under the head's name":
            return tensors | {head: matrix}
        if how == "under the embedding's name":
            return tensors | {embedding: matrix}
        other = matrix + (0.5 if how == "its own" else 0)
        return tensors | {embedding: matrix, head: other}

    return change


@pytest.mark.parametrize("form", ["one file", "sharded", "bin"])
@pytest.mark.parametrize("layout", ["distime", "published"])
def test_a_head_of_its_own_survives_a_configuration_that_says_tied(
    tied, tmp_path, layout, form, caplog
):
    change = with_head(layout, "its own")
    folder = rewritten(tied[layout], tmp_path / "source", form, change)
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    assert "tie_word_embeddings" in caplog.text
    difference = model.lm_head.weight - model.get_input_embeddings().weight
    torch.testing.assert_close(difference, torch.full_like(difference, 0.5))
    assert not model.config.tie_word_embeddings

    model.save_pretrained(tmp_path / "saved")
    for target in ("distime", "published"):
        convert(folder, tmp_path / target, target)
    for name in ("saved", "distime", "published"):
        again = DisTimeForConditionalGeneration.from_pretrained(tmp_path / name)
        assert torch.equal(again.lm_head.weight, model.lm_head.weight), name
        assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("how", ["equal", "under the head's name", "under the embedding's name"])
@pytest.mark.parametrize("layout", ["distime", "published"])
def test_one_matrix_stays_one_under_whatever_names(tied, tmp_path, layout, how):
    folder = rewritten(tied[layout], tmp_path / "source", "one file", with_head(layout, how))
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    expected = DisTimeForConditionalGeneration.from_pretrained(tied["distime"])
    assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert model.config.tie_word_embeddings


def test_matrices_tied_or_parted_by_hand_are_saved_as_they_are(tied, tmp_path):
    model = DisTimeForConditionalGeneration.from_pretrained(tied["distime"])
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight + 1)
    model.save_pretrained(tmp_path / "parted")
    published.write(model, tmp_path / "there")
    assert HEAD in load_file(tmp_path / "parted" / "model.safetensors")
    parted = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "parted")
    assert torch.equal(parted.lm_head.weight, model.lm_head.weight)

    parted.lm_head.weight = parted.get_input_embeddings().weight
    parted.save_pretrained(tmp_path / "joined")
    joined = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "joined")
    assert joined.lm_head.weight is joined.get_input_embeddings().weight
