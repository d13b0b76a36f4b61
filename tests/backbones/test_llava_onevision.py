"""LLaVA-OneVision against the library: pixels, tokens of pictures, base checkpoints; its words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.backbones import BACKBONES
from distime.backbones.base import ProcessorError
from distime.backbones.llava_onevision import LlavaOnevisionSettings
from distime.backbones.llava_onevision.anyres import grids_of
from distime.data.lengths import conversation_lengths
from distime.data.schema import TrainingItem
from distime.model.adapter import WEIGHTS
from distime.model.weights import CheckpointError
from distime.processing.prompt import Media, PromptError, Turn, encode_conversation, encode_prompt
from distime.processing.sampling import VideoSample
from distime.processing.tokenizer import add_special_tokens, load_tokenizer
from distime.toy.tiny import word_tokenizer, write_tiny_checkpoint
from distime.train.arguments import ModelArguments
from distime.train.export import Exporter
from distime.train.flags import ArgumentError
from distime.train.lora import select_trainable
from distime.train.speed import check_backbone
from tiny_tokenizers import write_qwen2

LLAVA = BACKBONES["llava_onevision"]
PUBLISHED = LlavaOnevisionSettings()
SMALL = LlavaOnevisionSettings(image_size=56, image_grid_pinpoints=grids_of(56, 6))
WORDS = ["when does the red square appear ?"]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


# ------------------------------------------------------------------ pictures


def test_the_published_numbers():
    library = LlavaOnevisionConfig()
    assert LLAVA.read_settings(Path("nowhere"), {}) == PUBLISHED
    assert [list(grid) for grid in PUBLISHED.image_grid_pinpoints] == library.image_grid_pinpoints
    assert (PUBLISHED.patches, PUBLISHED.tokens_per_frame) == (27, 196)
    media = LLAVA.video_media(16, None, PUBLISHED)
    assert media.num_image_tokens == 16 * 196 + 1
    assert media.num_frames == 16


def library_processor() -> LlavaOnevisionImageProcessorPil:
    return LlavaOnevisionImageProcessorPil(
        size={"height": 56, "width": 56},
        image_grid_pinpoints=[list(grid) for grid in SMALL.image_grid_pinpoints],
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


sides = st.integers(1, 400)


@given(sides, sides)
def test_pixels_of_one_picture_are_the_librarys(width, height):
    one = picture(width, height)
    theirs = library_processor()(one, return_tensors="pt")
    ours = LLAVA.images([one], SMALL)
    assert ours["image_grid_thw"].tolist() == [[len(theirs["pixel_values"][0]), height, width]]
    bound = 1 / 255 / 0.5  # of normalised values
    torch.testing.assert_close(
        ours["pixel_values"], theirs["pixel_values"][0], rtol=0, atol=bound + 1e-6
    )


def test_pixels_of_several_pictures_are_the_librarys():
    several = [picture(90, 40), picture(30, 80, 1), picture(50, 50, 2)]
    theirs = library_processor()([several], return_tensors="pt")["pixel_values"]
    ours = LLAVA.images(several, SMALL)
    assert ours["image_grid_thw"].tolist() == [[1, 40, 90], [1, 80, 30], [1, 50, 50]]
    torch.testing.assert_close(ours["pixel_values"], theirs[:, 0], rtol=0, atol=1 / 255 / 0.5)
    whole = LLAVA.images(several[:1], SMALL, tiled=False)
    assert torch.equal(whole["pixel_values"], ours["pixel_values"][:1])


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_picture_has_as_many_tokens_as_the_library_makes(width, height):
    config = LlavaOnevisionConfig()
    grid = select_best_resolution((height, width), config.image_grid_pinpoints)
    squares = torch.zeros(1 + grid[0] * grid[1] // 384**2, 27**2, 1)
    packed, _ = LlavaOnevisionModel.pack_image_features(
        SimpleNamespace(config=config), [squares], [(height, width)], torch.zeros(1)
    )
    media = LLAVA.image_media([(width, height)], PUBLISHED)
    assert media.num_image_tokens == len(packed[0])


def test_settings_that_cannot_be_are_refused():
    for values in ({"patch_size": 500}, {"image_size": 100}, {"image_grid_pinpoints": ()}):
        with pytest.raises(ProcessorError):
            LlavaOnevisionSettings(**values)
    with pytest.raises(ProcessorError, match="'pad': only anyres_max_N"):
        LLAVA.read_settings(Path("nowhere"), {"vision_aspect_ratio": "pad"})


# ------------------------------------------------------------------ features


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava_onevision")
    write_tiny_checkpoint(
        folder, WORDS, image_size=84, patch_size=14, hidden_size=32, num_layers=2,
        backbone="llava_onevision",
    )  # fmt: skip
    return folder


@torch.no_grad()
def test_media_of_a_batch_are_encoded_as_each_alone(folder):
    model = DisTimeForConditionalGeneration.from_pretrained(folder).eval()
    settings = DisTimeProcessor.from_pretrained(folder).settings
    media = [
        LLAVA.video([picture(70, 50, seed) for seed in range(3)], settings),
        LLAVA.images([picture(100, 60, 3)], settings),
        LLAVA.images([picture(20, 60, 4), picture(60, 60, 5)], settings),
        LLAVA.video([picture(70, 50, 6)], settings),
    ]
    together = {name: torch.cat([one[name] for one in media]) for name in media[0]}
    alone = torch.cat([model.encode_images(**one) for one in media])
    torch.testing.assert_close(model.encode_images(**together), alone, rtol=1e-5, atol=1e-6)
    newline = model.model.image_newline
    assert torch.equal(alone[3 * settings.tokens_per_frame], newline)
    assert (alone[: 3 * settings.tokens_per_frame] != newline).any(-1).all()
    together["image_grid_thw"] = together["image_grid_thw"][:-1]
    with pytest.raises(ValueError, match="image_grid_thw has .* squares, but pixel_values"):
        model.encode_images(**together)


# ------------------------------------------------------------------ base checkpoints

LAYOUTS = {
    "today": [],
    "deeper tower": [(r"^model\.vision_tower\.", "model.vision_tower.vision_model.")],
    "hub": [
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(multi_modal_projector|image_newline)", r"\1"),
    ],
}
"""How the names that releases of transformers have written follow from today's."""


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_base_checkpoint_of_every_layout_gets_time(folder, tmp_path, layout, tied):
    """As on the hub: the plain model, spare rows behind its tokens, statistics in a file."""
    tokenizer = word_tokenizer(WORDS, ("<image>", "<video>"))
    config = DisTimeForConditionalGeneration.from_pretrained(folder).config.to_dict()
    config |= {"model_type": "llava_onevision", "tie_word_embeddings": tied}
    config |= {"ignore_index": -100, "use_image_newline_parameter": True}
    config["text_config"] |= {"vocab_size": len(tokenizer) + 5, "tie_word_embeddings": tied}
    for name in ("image", "video"):
        config[f"{name}_token_index"] = tokenizer.convert_tokens_to_ids(f"<{name}>")
    plain = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(**config)).eval()
    plain.save_pretrained(tmp_path, save_original_format=False)
    tensors = load_file(tmp_path / "model.safetensors")
    for pattern, replacement in LAYOUTS[layout]:
        tensors = {re.sub(pattern, replacement, name): one for name, one in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(tmp_path)
    said = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    # The layout is one that the library itself reads.
    library = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path)
    old = plain.state_dict()
    assert all(torch.equal(one, old[name]) for name, one in library.state_dict().items())

    model, info = DisTimeForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    processor = DisTimeProcessor.from_pretrained(tmp_path)
    processor.check_model(model.config)
    assert processor.settings.image_mean == (0.4,) * 3
    assert processor.settings.image_size == 84
    assert info["missing_keys"]
    assert all(name.startswith(("time_encoder", "time_decoder")) for name in info["missing_keys"])
    new = model.state_dict()
    ids = [processor.token_ids.time_stamp, processor.token_ids.frame_time_ref]
    for name, tensor in old.items():
        kept = torch.ones(tensor.shape[:1], dtype=torch.bool)
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            kept[ids] = False
        assert torch.equal(new[name][kept], tensor[kept]), name
    rows = new["lm_head.weight"][ids]
    if tied:
        assert torch.equal(rows, new["model.language_model.embed_tokens.weight"][ids])
    else:
        mean = old["lm_head.weight"][: len(tokenizer)].mean(0)
        torch.testing.assert_close(rows, mean.expand(2, -1))
    sample = VideoSample(np.zeros((2, 40, 60, 3), np.uint8), [0.5, 1.5], 2.0, [0, 1])
    inputs = processor(sample, "when ?")
    assert model.generate(**inputs, max_new_tokens=2).shape[0] == 1


# ------------------------------------------------------------------ words


def test_turns_are_those_of_the_librarys_chat_template(folder):
    processor = DisTimeProcessor.from_pretrained(folder)
    text = processor.template.prompt("<video>\nwhen?", [("<image>\nwhat?", "a square.")])
    assert text == (
        "<|im_start|>user\n<image>\nwhat?<|im_end|>\n<|im_start|>assistant\na square.<|im_end|>\n"
        "<|im_start|>user\n<video>\nwhen?<|im_end|>\n<|im_start|>assistant\n"
    )


QWEN_WORDS = st.sampled_from(["door", " ", "\n", "  ", "When", "?", "<TIME_STAMP>", "<im", "<"])
TEXT = st.lists(QWEN_WORDS, max_size=6).map("".join)


@pytest.fixture(scope="module")
def qwen_tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_qwen2(path, ["Ċ Ċ", "t h"])  # line ends about a picture merge only without it
    tokenizer = load_tokenizer(path)
    add_special_tokens(tokenizer, LLAVA.template_class.added_tokens)
    return tokenizer


@pytest.mark.parametrize(
    ("tags", "media"),
    [
        (["<video>"], Media(4, num_frames=3, num_extra=1)),
        (["<image>"], Media(1, image_tiles=(7,))),
        (["<image>", "<image>"], Media(1, image_tiles=(5, 2))),
        ([], Media()),
    ],
)
@given(texts=st.lists(TEXT, min_size=3, max_size=3), answer=TEXT)
def test_tags_that_are_tokens_stand_for_their_media(qwen_tokenizer, tags, media, texts, answer):
    tokenizer, template = qwen_tokenizer, LLAVA.template_class()
    human = "".join(text + tag for text, tag in zip(texts, [*tags, "", ""], strict=False))
    turns = (Turn("human", human), Turn("gpt", f"a{answer}"))
    encoded = encode_conversation(tokenizer, template, turns, media)
    visual = [tokenizer.convert_tokens_to_ids(name) for name in template.placeholders]
    found = [token for token in encoded.input_ids if token in visual]
    assert len(found) == media.num_image_tokens
    assert set(found) <= {visual[0 if media.num_frames else 1]}
    # Counted without its pictures, it is as long.
    processor = SimpleNamespace(tokenizer=tokenizer, template=template)
    (length,) = conversation_lengths(processor, [TrainingItem(turns)], [media])
    assert length == len(encoded.input_ids)


@pytest.mark.parametrize("tag", ["<video>", "<image>"])
def test_a_tag_without_its_media_is_an_error(qwen_tokenizer, tag):
    tokenizer, template = qwen_tokenizer, LLAVA.template_class()
    media = Media(4, num_frames=3, num_extra=1)
    for human, gpt, shown in (
        (tag, "a", Media()),
        ("<video>", f"a {tag}", media),
        (f"<video> {tag}", "a", media),
    ):
        with pytest.raises(PromptError):
            turns = [Turn("human", human), Turn("gpt", gpt)]
            encode_conversation(tokenizer, template, turns, shown)
    with pytest.raises(PromptError):
        encode_prompt(tokenizer, template, f"what? {tag} {tag}", media)


# ------------------------------------------------------------------ adapters


@pytest.mark.parametrize("freeze_mlp", [True, False])
@pytest.mark.parametrize("use_llm_lora", [0, 2])
def test_an_adapter_holds_the_newline_that_was_trained(folder, tmp_path, freeze_mlp, use_llm_lora):
    """The projector has a parameter beside its module, which PEFT has no words for."""
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    arguments = ModelArguments(
        str(folder), freeze_llm=True, freeze_backbone=True, freeze_mlp=freeze_mlp,
        use_llm_lora=use_llm_lora,
    )  # fmt: skip
    select_trainable(model, arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    exporter = Exporter(model, DisTimeProcessor.from_pretrained(folder), arguments)
    exporter.write_full(tmp_path / "full")
    exporter.write_adapter(tmp_path / "adapter")
    full, base = (
        dict(DisTimeForConditionalGeneration.from_pretrained(one).named_parameters())
        for one in (tmp_path / "full", folder)
    )
    loaded = DisTimeForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, full[name]), name
    newline = "model.image_newline"
    assert torch.equal(full[newline], base[newline]) == freeze_mlp
    path = tmp_path / "adapter" / WEIGHTS
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.model.other": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"not those of its configuration.*model\.other"):
        DisTimeForConditionalGeneration.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_3_is_refused_before_weights_are_read(folder, stage):
    processor = DisTimeProcessor.from_pretrained(folder)
    data = SimpleNamespace(processor_overrides={}, packing=False)
    training = SimpleNamespace(hf_deepspeed_config=SimpleNamespace(is_zero3=lambda: stage == 3))
    if stage == 2:
        check_backbone(processor, SimpleNamespace(), data, training)
        return
    with pytest.raises(ArgumentError, match="--deepspeed: llava_onevision .*zero_stage2"):
        check_backbone(processor, SimpleNamespace(), data, training)
