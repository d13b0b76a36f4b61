"""Features on disk: whole, told apart, and only where there is room."""

from __future__ import annotations

import os
from collections import namedtuple

import pytest
import torch
from torch import nn

from distime.data import features
from distime.data.features import FeatureCache, FeatureError, LoadedMedia, fingerprint
from distime.processing.processor import ProcessorSettings
from distime.processing.prompt import Media


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache", "0123", width=3, dtype=torch.bfloat16)


@pytest.fixture
def video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"video")
    return tmp_path / "a.mp4"


def entry(media):
    values = torch.randn(8, 3).to(torch.bfloat16)
    return LoadedMedia(media, torch.tensor([0.25, 0.75]), 12.5, torch.zeros(4, 3, 8, 8), values)


@pytest.mark.parametrize("media", [Media(2, num_frames=4), Media(2, image_tiles=(3, 1))])
def test_what_is_saved_is_loaded(cache, video, media):
    path, saved = cache.path([video], "middle 4"), entry(media)
    cache.save(path, saved)
    loaded = cache.load(path)
    assert (loaded.media, loaded.duration) == (media, 12.5)
    assert loaded.image_features.dtype == torch.bfloat16
    assert torch.equal(loaded.image_features, saved.image_features)
    assert torch.equal(loaded.frame_times, saved.frame_times)
    assert len(loaded.pixel_values) == 0
    assert list(path.parent.iterdir()) == [path]  # nothing partial is left


def test_names_tell_apart_what_differs(cache, video):
    name = cache.path([video], "middle 4")
    assert cache.path([video], "middle 4") == name
    assert cache.path([video], "middle 8") != name
    assert cache.path([video, video], "middle 4") != name
    os.utime(video, (0, 0))
    assert cache.path([video], "middle 4") != name
    with pytest.raises(FileNotFoundError, match="gone"):
        cache.path(["gone.mp4"], "middle 4")


def test_fingerprint_is_of_weights_precision_and_settings():
    torch.manual_seed(0)
    layer, settings = nn.Linear(2, 2), ProcessorSettings()
    mark = fingerprint([layer], torch.bfloat16, settings)
    assert fingerprint([layer], torch.bfloat16, settings) == mark
    assert fingerprint([layer], torch.float32, settings) != mark
    assert fingerprint([layer], torch.bfloat16, ProcessorSettings(max_tiles=1)) != mark
    with torch.no_grad():
        layer.bias[0] += 1
    assert fingerprint([layer], torch.bfloat16, settings) != mark


def test_a_damaged_file_is_named(cache, video):
    path = cache.path([video], "middle 4")
    cache.save(path, entry(Media(2, num_frames=4)))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(OSError, match=rf"{path.name}: damaged .*delete it"):
        cache.load(path)


def test_a_full_disk_is_found_before_anything_is_written(cache, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage(free=100))
    cache.check_space(16)  # 16 tokens of 6 bytes
    with pytest.raises(FeatureError, match="--cache_features .* choose another disk"):
        cache.check_space(17)
