"""Dual encoders of transformers: CLIP and SigLIP say what their own forward pass says."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoProcessor,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from annotate.tiny_encoders import SIDE, VISION
from distime.annotate.dual_encoder import DualEncoder, check_encoder
from distime.toy.curriculum import words
from distime.toy.tiny import word_tokenizer

TEXTS = ["The red square is visible.", "the blue ring"]


@pytest.fixture(scope="session")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "siglip"
    torch.manual_seed(0)
    tokenizer = word_tokenizer(words(), [])
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16} | {
        name: VISION[name]
        for name in VISION
        if name not in ("image_size", "patch_size")
    }  # fmt: skip
    SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(folder)
    pictures = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    SiglipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["encoder", "siglip"])
def test_similarities_are_those_of_the_model(name, request):
    folder = request.getfixturevalue(name)
    check_encoder("--locator", folder)
    encoder = DualEncoder("--locator", folder, torch.device("cpu"), torch.float32)
    frames = np.random.default_rng(0).integers(0, 255, (40, 24, 30, 3)).astype(np.uint8)
    found, cut = encoder.similarity(frames, TEXTS)
    assert found.shape == (40, 2) and cut == 0

    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=TEXTS, images=list(frames), return_tensors="pt", padding="max_length", max_length=16
    )
    with torch.inference_mode():
        output = model.eval()(**inputs)
    expected = output.image_embeds @ output.text_embeds.T
    assert np.allclose(found, expected.numpy(), atol=1e-5)
    assert np.ptp(found, axis=0).min() > 1e-3  # frames differ


def test_a_text_that_is_cut_is_counted(encoder):
    encoder = DualEncoder("--locator", encoder, torch.device("cpu"), torch.float32)
    frames = np.zeros((2, 24, 30, 3), np.uint8)
    assert encoder.similarity(frames, [TEXTS[0], "red " * 40])[1] == 1
