"""Qwen-VL against the library: positions, sizes, pixels, and its base checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as image_size

from distime import DisTimeForConditionalGeneration, DisTimeProcessor
from distime.backbones import BACKBONES
from distime.backbones.pixels import ImageError
from distime.backbones.qwen_vl import Qwen2_5VLSettings, QwenVLSettings, slot_means
from distime.backbones.qwen_vl.patches import fitting_size, frame_size, patches
from distime.backbones.qwen_vl.positions import batch_positions, sequence_positions, sides_of
from distime.toy.tiny import word_tokenizer, write_tiny_checkpoint

sides = st.integers(1, 1500)
WORDS = ["when does the red square appear ?"]


@given(sides, sides)
def test_pictures_have_the_librarys_size(width, height):
    settings = QwenVLSettings()
    bounds = settings.image_min_pixels, settings.image_max_pixels
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ImageError, match="more than 200 times"):
            fitting_size(width, height, 32, *bounds)
        return
    expected = image_size(height, width, 32, *bounds)
    assert fitting_size(width, height, 32, *bounds) == expected[::-1]


@given(sides, sides, st.integers(2, 200))
def test_frames_have_the_librarys_size(width, height, num_frames):
    module = "transformers.models.qwen3_vl.video_processing_qwen3_vl"
    library = pytest.importorskip(module, reason="it needs torchvision")
    settings = QwenVLSettings()
    least, most = settings.video_min_pixels, settings.video_max_pixels
    if max(width, height) > 150 * min(width, height):
        return
    cap = max(min(768 * 32**2, most // num_frames), int(least * 1.05))  # its `cap_pixels_per_frame`
    expected = library.smart_resize(num_frames, height, width, 2, 32, least, cap * num_frames)
    found = frame_size(width, height, num_frames, 32, 2, least, most, settings.max_frame_tokens)
    assert found == expected[::-1]


def test_a_single_frame_keeps_its_size():
    assert frame_size(640, 360, 1, 32, 2, 4096, 25165824, 768) == (640, 352)


def test_pixels_are_the_librarys():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 110, 3), np.uint8))
    library = Qwen2VLImageProcessorPil(
        patch_size=16,
        size={"shortest_edge": 1024, "longest_edge": 16384},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    theirs = library(picture, return_tensors="pt")
    size = fitting_size(110, 75, 32, 1024, 16384)
    ours = patches(
        [picture, picture], size, patch_size=16, merge_size=2, mean=[0.5] * 3, std=[0.5] * 3
    )
    assert theirs["image_grid_thw"].tolist() == [[1, size[1] // 16, size[0] // 16]]
    torch.testing.assert_close(ours, theirs["pixel_values"], rtol=0, atol=1 / 255 / 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3_vl")
    write_tiny_checkpoint(folder, WORDS, hidden_size=32, num_layers=2, backbone="qwen3_vl")
    return folder


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_are_the_librarys(folder, side):
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    image, video = model.config.image_token_id, model.config.video_token_id
    rows = [
        [9, 9, *[image] * 6, 9, *[image] * 4, 9],
        [9] * 4,
        [9, *[video] * 2, 9, 9, *[video] * 2, 9],
    ]
    images = torch.tensor([[1, 4, 6], [1, 8, 2]])  # in patches: 2 x 3 and 4 x 1 tokens
    videos = torch.tensor([[2, 2, 4]])
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    pair = zip(rows, fill, strict=True)
    ids = torch.tensor([f + r if side == "left" else r + f for r, f in pair])
    mask = (ids != 0).long()
    kinds = (ids == image).int() + 2 * (ids == video).int()
    plain = Qwen3VLForConditionalGeneration(model.config)
    expected, _ = plain.model.get_rope_index(
        ids, kinds, image_grid_thw=images, video_grid_thw=videos, attention_mask=mask
    )
    grid = torch.tensor([*images.tolist(), [1, 2, 4], [1, 2, 4]])
    assert torch.equal(model.prompt_positions(ids, mask, grid), expected)


def test_grids_that_do_not_match_their_tokens_are_errors():
    visual = torch.tensor([False, True, True, False])
    with pytest.raises(ValueError, match="has 2 tokens of pictures.*have 3"):
        sequence_positions(visual, [(1, 3)])
    with pytest.raises(ValueError, match="1 pictures more"):
        batch_positions(visual[None], None, [(1, 2), (2, 2)])
    assert sides_of(torch.tensor([[1, 4, 6]]), 2) == [(2, 3)]


def test_a_slot_has_the_middle_of_its_frames_times():
    assert slot_means([0.0, 1.0, 4.0, 6.0], 2) == [0.5, 5.0]
    assert slot_means([0.0, 1.0, 4.0], 2) == [0.5, 4.0]


PLAIN = {
    "qwen3_vl": Qwen3VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}


@pytest.mark.parametrize(
    ("backbone", "old"), [("qwen3_vl", False), ("qwen2_5_vl", False), ("qwen2_5_vl", True)]
)
def test_a_base_checkpoint_gets_time(backbone, old, tmp_path):
    """As on the hub: the plain model, spare rows behind its tokens, settings of the library's.

    Old ones have the language model's fields at the top, and no name for its tensors.
    """
    tokens = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = word_tokenizer(WORDS, tokens)
    one = BACKBONES[backbone]
    with_time = word_tokenizer(WORDS, one.template_class.added_tokens)
    sizes = {"image_size": 56, "patch_size": 14, "hidden_size": 32, "num_layers": 2}
    ours, _ = one.tiny(with_time, num_frames=4, **sizes)
    config = ours.config.to_dict() | {"model_type": backbone, "tie_word_embeddings": False}
    config["text_config"] |= {"vocab_size": len(tokenizer) + 5, "tie_word_embeddings": False}
    for name in ("image", "video"):
        config[f"{name}_token_id"] = tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>")
    plain = PLAIN[backbone](PLAIN[backbone].config_class(**config))
    tensors = plain.state_dict()
    if old:
        tensors = {
            name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): one
            for name, one in tensors.items()
        }
        config |= config.pop("text_config") | {"model_type": backbone}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    tokenizer.save_pretrained(tmp_path)
    size = {"shortest_edge": 3136, "longest_edge": 784000}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size}))

    model, info = DisTimeForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    processor = DisTimeProcessor.from_pretrained(tmp_path)
    processor.check_model(model.config)
    assert processor.settings.image_max_pixels == 784000
    assert processor.settings.patch_size == 14
    assert all(name.startswith(("time_encoder", "time_decoder")) for name in info["missing_keys"])
    before, after = plain.state_dict(), model.state_dict()
    ids = [processor.token_ids.time_stamp, processor.token_ids.frame_time_ref]
    for name, tensor in before.items():
        kept = torch.ones(len(tensor), dtype=torch.bool)
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            kept[ids] = False
        assert torch.equal(after[name][kept], tensor[kept]), name
    mean = before["lm_head.weight"][: len(tokenizer)].mean(0)
    torch.testing.assert_close(after["lm_head.weight"][ids], mean.expand(2, -1))


def test_frames_of_qwen2_5_are_of_some_size_each():
    backbone, settings = BACKBONES["qwen2_5_vl"], Qwen2_5VLSettings()
    few = backbone.video_media(2, (320, 180), settings)  # enlarged: 128 tokens at least
    assert few.num_frames == 1 and few.tokens_per_image >= 128
    many = backbone.video_media(2, (4000, 2000), settings)
    assert many.tokens_per_image <= 768
