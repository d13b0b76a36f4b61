"""Pixels that travel as uint8 are, normalised by the model, the pixels that floats would be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backbone_samples import video
from PIL import Image


def test_bytes_become_the_same_pixels_in_a_quarter_of_the_memory(tiny):
    backbone, settings = tiny.processor.backbone, tiny.processor.settings
    frames = video(1, 3, 70, 90).frames
    pictures = [Image.fromarray(frame) for frame in frames[:2]]
    tiny.processor.check_model(tiny.model.config)
    for make, shown in ((backbone.video, frames), (backbone.images, pictures)):
        floats, raw = make(shown, settings), make(shown, settings, raw=True)
        assert raw["pixel_values"].dtype == torch.uint8
        assert 4 * raw["pixel_values"].nbytes == floats["pixel_values"].nbytes
        assert torch.equal(tiny.model.normalised(raw["pixel_values"]), floats["pixel_values"])
        assert tiny.model.normalised(floats["pixel_values"]) is floats["pixel_values"]
        assert torch.equal(tiny.model.encode_images(**raw), tiny.model.encode_images(**floats))
    assert backbone.images([], settings, raw=True)["pixel_values"].dtype == torch.uint8


def test_the_model_normalises_as_the_processor_says(tiny, monkeypatch):
    processor, config = tiny.processor, tiny.model.config
    monkeypatch.setattr(
        processor, "settings", replace(processor.settings, image_mean=(0.1, 0.2, 0.3))
    )
    monkeypatch.setattr(config, "image_mean", config.image_mean)  # put back afterwards
    processor.check_model(config)
    assert list(config.image_mean) == [0.1, 0.2, 0.3]
    sample = video(1, 2)
    raw = processor.shared_prefix(sample, ["when ?"]).prefix["pixel_values"]
    assert raw.dtype == torch.uint8
    expected = processor(sample, "when ?")["pixel_values"]
    assert expected.dtype == torch.float32
    assert torch.equal(tiny.model.normalised(raw), expected)

    monkeypatch.setattr(config, "image_mean", None)
    with pytest.raises(ValueError, match="call processor.check_model"):
        tiny.model.normalised(raw)
