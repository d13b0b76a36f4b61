"""InternVL 2.5, 3 and 3.5 as base models, in each layout that they are published in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

from distime import DisTimeConfig, DisTimeForConditionalGeneration, DisTimeProcessor
from distime.backbones.base import ProcessorError
from distime.backbones.internvl.published.config import published_config
from distime.backbones.internvl.published.names import to_published
from distime.backbones.template import INTERNVL2_5_SYSTEM
from distime.conversion import convert
from distime.model.tokens import NEW_TOKENS, SPECIAL_TOKENS
from distime.model.tying import without_tied_head
from distime.model.weights import CheckpointError
from distime.toy.tiny import word_tokenizer

WORDS = ["when does the red square appear ?"]
SPARE = 7
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": [16, 16], "patch_size": [4, 4], "attention_bias": True,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
# A head of Qwen3 need not be a fourth of the width, and its small models have one matrix.
FAMILIES = {
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "qwen3 tied": {"model_type": "qwen3", "head_dim": 12, "tie_word_embeddings": True},
    "internlm2": {"model_type": "llama", "attention_bias": False},
}
LAYOUTS = ["published", "library", "older library"]
FILE = "model.safetensors"


def plain_model(family: str, rows: int, image_token: int) -> InternVLForConditionalGeneration:
    text = TEXT | FAMILIES[family] | {"vocab_size": rows}
    tied = bool(text.get("tie_word_embeddings"))
    config = InternVLConfig(
        text_config=text, vision_config=VISION, image_token_id=image_token, image_seq_length=4,
        tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model


def write_published(plain: InternVLForConditionalGeneration, folder: Path) -> None:
    """As on the hub: no time modules, and the conversation template by its name."""
    values = {k: v for k, v in plain.config.to_dict().items() if k != "model_type"}
    config = published_config(DisTimeConfig(**values), torch.float32)
    for key in ("dec_reg", "enc_sigma", "layer_num"):
        del config[key]
    config |= {"architectures": ["InternVLChatModel"], "max_dynamic_patch": 12}
    (folder / "config.json").write_text(json.dumps(config))
    state = without_tied_head(plain, plain.state_dict())
    time = {"time_decoder.layers.0.weight": torch.zeros(1)}
    tensors = to_published(state | time, DisTimeConfig(**values))
    kept = {n: t.clone() for n, t in tensors.items() if not n.startswith("time_")}
    save_file(kept, folder / FILE)


def write_library(plain: InternVLForConditionalGeneration, folder: Path, older: bool) -> None:
    """As transformers writes it, under the names in the model or those that the hub's files have;
    with the files of its processor."""
    plain.save_pretrained(folder, save_original_format=older)
    assert any(name.startswith("vision_tower.") for name in load_file(folder / FILE)) == older
    pictures = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_patches": 9}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


CHAT_TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ '<|im_end|>\n' }}\
{% endfor %}"""


class Base:
    """A base model in a folder, and the plain class with the same weights."""

    def __init__(self, family: str, layout: str, folder: Path):
        self.family, self.layout, self.folder = family, layout, folder
        self.tokenizer = word_tokenizer(WORDS, SPECIAL_TOKENS[:-2])
        image = self.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        self.plain = plain_model(family, len(self.tokenizer) + SPARE, image)
        self.tokenizer.save_pretrained(folder)
        if layout == "published":
            write_published(self.plain, folder)
        else:
            write_library(self.plain, folder, layout.startswith("older"))

    def inputs(self) -> dict[str, torch.Tensor]:
        image = self.plain.config.image_token_id
        generator = torch.Generator().manual_seed(1)
        return {
            "input_ids": torch.tensor([[3, 4, *[image] * 4, 5, *[image] * 4, 6, 7]]),
            "pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
        }


@pytest.fixture(params=[f"{family}, {layout}" for family in FAMILIES for layout in LAYOUTS])
def base(request, tmp_path) -> Base:
    family, layout = request.param.split(", ")
    return Base(family, layout, tmp_path)


def test_the_base_is_the_plain_model_with_time(base):
    model, info = DisTimeForConditionalGeneration.from_pretrained(
        base.folder, output_loading_info=True
    )
    assert info["missing_keys"]
    assert all(name.startswith(("time_encoder.", "time_decoder.")) for name in info["missing_keys"])
    processor = DisTimeProcessor.from_pretrained(base.folder)
    processor.check_model(model.config)
    assert processor.settings.image_size == 16 and processor.settings.patch_size == 4
    with torch.no_grad():
        ours = model.eval()(**base.inputs()).last_hidden_state
        theirs = base.plain.model(**base.inputs()).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_new_tokens_have_rows(base):
    model = DisTimeForConditionalGeneration.from_pretrained(base.folder)
    processor = DisTimeProcessor.from_pretrained(base.folder)
    known, new = len(base.tokenizer), [processor.token_ids.time_stamp]
    new.append(processor.token_ids.frame_time_ref)
    assert new == [known, known + 1]
    # The published recipe makes the vocabulary as long as the tokenizer.
    spare = 0 if base.layout == "published" else SPARE - 2
    before, after = base.plain.lm_head.weight, model.lm_head.weight
    assert len(after) == len(model.get_input_embeddings().weight) == known + 2 + spare
    assert torch.equal(after[:known], before[:known])
    torch.testing.assert_close(after[new], before[:known].mean(0).expand(2, -1))
    is_tied = base.family.endswith("tied")
    assert model.config.tie_word_embeddings == is_tied
    embedding = model.get_input_embeddings().weight
    assert (embedding is after) == is_tied
    if not is_tied:
        deviation = model.config.text_config.initializer_range
        assert 0.5 * deviation < embedding[new].std() < 1.5 * deviation


def test_conversion_there_and_back(base, tmp_path):
    ours, back = tmp_path / "ours", tmp_path / "back"
    convert(base.folder, ours)
    convert(ours, back, "published")
    names = load_file(back / FILE).keys()
    assert "vision_model.encoder.layers.0.attn.qkv.weight" in names
    norm = "language_model.model.layers.1.self_attn.q_norm.weight"
    assert (norm in names) == base.family.startswith("qwen3")
    first, second = (
        DisTimeForConditionalGeneration.from_pretrained(folder).eval() for folder in (ours, back)
    )
    with torch.no_grad():
        results = [model(**base.inputs()).logits for model in (first, second)]
    assert torch.equal(*results)
    settings = [DisTimeProcessor.from_pretrained(f).settings for f in (base.folder, ours, back)]
    assert settings[0] == settings[1] == settings[2]


def test_what_each_layout_says_of_words_and_pictures(tmp_path):
    base = Base("qwen2", "published", tmp_path)
    settings = DisTimeProcessor.from_pretrained(tmp_path).settings
    assert settings.system_message == INTERNVL2_5_SYSTEM and settings.max_tiles == 12
    config = json.loads((tmp_path / "config.json").read_text()) | {"system_message": "Be brief."}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert DisTimeProcessor.from_pretrained(tmp_path).settings.system_message == "Be brief."
    write_library(base.plain, tmp_path, older=False)
    settings = DisTimeProcessor.from_pretrained(tmp_path).settings
    assert settings.system_message is None
    assert settings.image_mean == (0.5, 0.5, 0.5) and settings.max_tiles == 9


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json"])
def test_the_system_turn_of_a_chat_template(tmp_path, file):
    Base("qwen2", "library", tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    text = "{{ '<|im_start|>system\nLook closely.<|im_end|>\n' }}" + CHAT_TEMPLATE
    (tmp_path / file).write_text(
        text if file.endswith("jinja") else json.dumps({"chat_template": text})
    )
    processor = DisTimeProcessor.from_pretrained(tmp_path)
    assert processor.settings.system_message == "Look closely."
    (tmp_path / file).write_text(
        "{{ raise_exception('no') }}"
        if file.endswith("jinja")
        else json.dumps({"chat_template": "{% if %}"})
    )
    with pytest.raises(ProcessorError, match="its chat template cannot be used"):
        DisTimeProcessor.from_pretrained(tmp_path)


def test_a_template_that_is_not_known_is_said(tmp_path, caplog):
    Base("qwen2", "published", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"template": "Hermes-2"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    DisTimeProcessor.from_pretrained(tmp_path)
    assert "template 'Hermes-2' is not known" in caplog.text


def test_time_tokens_that_the_tokenizer_has_keep_their_rows(tmp_path):
    base = Base("qwen3", "library", tmp_path)
    base.tokenizer.add_tokens(NEW_TOKENS, special_tokens=True)
    base.tokenizer.save_pretrained(tmp_path)
    model = DisTimeForConditionalGeneration.from_pretrained(tmp_path)
    assert model.config.time_token_id == len(base.tokenizer) - 2
    assert torch.equal(model.lm_head.weight, base.plain.lm_head.weight)


def test_a_language_model_that_the_published_layout_lacks(tmp_path):
    Base("qwen3", "published", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["llm_config"] |= {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'qwen3_moe' is not supported; there are qwen2, qw"):
        DisTimeForConditionalGeneration.from_pretrained(tmp_path)
