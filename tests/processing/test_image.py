import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL import __version__ as pillow_version
from safetensors.torch import load_file

from distime.processing.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageError,
    frames_to_pixels,
    jpeg_augment,
    load_image,
    tile_grid,
    tile_image,
)
from distime.processing.video import open_video


@pytest.fixture(scope="module")
def recorded(golden_root):
    return load_file(golden_root / "common" / "cases.safetensors")


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# --------------------------------------------------------------------------- recorded values

recorded_by_this_pillow = pytest.mark.skipif(
    int(pillow_version.split(".")[0]) < 13,
    reason=f"recorded with Pillow 13, and {pillow_version} resizes upright pictures otherwise",
)


@pytest.mark.golden
@recorded_by_this_pillow
def test_pixels_are_the_published_ones(recorded):
    names = [name for name in recorded if name.startswith("transform/") and "/image" in name]
    assert len(names) == 4
    for name in names:
        pixels = frames_to_pixels(recorded[name].numpy()[None], 56)
        expected = recorded[name.replace("/image", "/pixel_values")]
        assert torch.equal(pixels[0], expected), name


@pytest.mark.golden
def test_tiles_are_the_published_ones(recorded, golden_root):
    cases = json.loads((golden_root / "common" / "cases.json").read_text())["tiles"]
    for name, case in cases.items():
        tiles = tile_image(
            recorded[f"tiles/{name}/image"].numpy(),
            56,
            max_num=case["max_num"],
            use_thumbnail=case["use_thumbnail"],
        )
        assert len(tiles) == case["n"]
        assert torch.equal(frames_to_pixels(tiles, 56), recorded[f"tiles/{name}/pixel_values"])


@pytest.mark.golden
@recorded_by_this_pillow
def test_pixels_of_decoded_videos(golden_root):
    """From the mp4 file to the tensor: the published code read these with another decoder."""
    pixels = load_file(golden_root / "common" / "pixels.safetensors")
    numbers = json.loads((golden_root / "qwen2" / "cases.json").read_text())
    for case in numbers["generate"].values():
        with open_video(golden_root / "common" / "videos" / case["video"]) as reader:
            found = frames_to_pixels(reader.frames(case["frame_indices"]), 56)
        expected = pixels[f"eval/{case['video']}/{case['frames']}"]
        scale = 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        assert ((found - expected).abs() * scale).max() <= 1
    lines = (golden_root / "common" / "train.jsonl").read_text().splitlines()
    for item in map(json.loads, lines):
        if item["id"] not in numbers["forward"]:
            continue
        with open_video(golden_root / "common" / "videos" / item["video"]) as reader:
            rounded = [round(i / reader.fps, 2) for i in range(reader.num_frames)]
            times = numbers["forward"][item["id"]]["frame_times"][::2]
            found = frames_to_pixels(reader.frames([rounded.index(time) for time in times]), 56)
        expected = pixels[f"train/{item['id']}"]
        assert ((found - expected).abs() * scale).max() <= 1, item["id"]


# --------------------------------------------------------------------------- pixels


def test_values_and_order():
    frame = np.zeros((8, 8, 3), dtype=np.uint8)
    frame[..., 0], frame[..., 2] = 255, 51
    pixels = frames_to_pixels([frame], 4)
    assert pixels.shape == (1, 3, 4, 4)
    assert pixels.dtype == torch.float32
    expected = [
        (v - m) / s for v, m, s in zip((1, 0, 0.2), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    for channel, value in enumerate(expected):
        torch.testing.assert_close(pixels[0, channel], torch.full((4, 4), value))
    plain = frames_to_pixels([frame], 4, mean=(0, 0, 0), std=(1, 1, 1))
    torch.testing.assert_close(plain[0, :, 0, 0], torch.tensor([1, 0, 0.2]))


def test_nothing_is_cropped():
    """The left half of a wide picture is the left half of the square."""
    frame = np.zeros((20, 100, 3), dtype=np.uint8)
    frame[:, :50] = 255
    pixels = frames_to_pixels([frame], 28, mean=(0, 0, 0), std=(1, 1, 1))
    assert pixels[0, :, :, :12].min() == 1
    assert pixels[0, :, :, 16:].max() == 0


def test_pictures_and_arrays_are_the_same():
    frames = noise(3, 30, 40, 3)
    pictures = [Image.fromarray(frame) for frame in frames]
    assert torch.equal(frames_to_pixels(frames, 28), frames_to_pixels(pictures, 28))
    grey = Image.fromarray(frames[0, ..., 0])
    assert torch.equal(frames_to_pixels([grey], 28), frames_to_pixels([grey.convert("RGB")], 28))
    assert frames_to_pixels([], 28).shape == (0, 3, 28, 28)
    assert frames_to_pixels([frames[0], noise(9, 7, 3)], 28).shape == (2, 3, 28, 28)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 4), (3, 30, 40)])
def test_wrong_frames(shape):
    with pytest.raises(ImageError, match=r"give uint8 RGB \(H, W, 3\)"):
        frames_to_pixels([noise(*shape)], 28)
    with pytest.raises(ImageError, match="float32"):
        frames_to_pixels([np.zeros((4, 4, 3), dtype=np.float32)], 28)


# --------------------------------------------------------------------------- augmentation


def test_jpeg_augmentation():
    frame = np.asarray(Image.fromarray(noise(8, 8, 3)).resize((64, 64)))
    once = np.asarray(jpeg_augment(frame, random.Random(0)))
    assert once.shape == frame.shape
    assert np.array_equal(once, np.asarray(jpeg_augment(frame, random.Random(0))))
    worst = np.abs(once.astype(int) - frame).mean()
    assert 0 < worst < 12

    class Recorded(random.Random):
        asked = None

        def randint(self, low, high):
            self.asked = (low, high)
            return high

    rng = Recorded()
    jpeg_augment(frame, rng)
    assert rng.asked == (75, 100)


# --------------------------------------------------------------------------- tiles


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.integers(1, 4).flatmap(lambda low: st.tuples(st.just(low), st.integers(low, 12))),
)
def test_tile_grid(width, height, limits):
    low, high = limits
    columns, rows = tile_grid(width, height, 448, low, high)
    assert low <= columns * rows <= high
    nearest = abs(width / height - columns / rows)
    for x in range(1, high + 1):
        for y in range(1, high + 1):
            if low <= x * y <= high:
                assert nearest <= abs(width / height - x / y)


def test_tile_grid_of_large_squares():
    """Of 1x1, 2x2 and 3x3, all equally near, the size of the picture decides."""
    assert tile_grid(400, 400, 448) == (1, 1)
    assert tile_grid(800, 800, 448) == (2, 2)
    assert tile_grid(1500, 1500, 448) == (3, 3)
    assert tile_grid(1500, 1500, 448, max_num=1) == (1, 1)
    with pytest.raises(ValueError, match="1 <= min <= max"):
        tile_grid(10, 10, 448, 3, 2)


def test_tiles_go_row_by_row_and_the_thumbnail_last():
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    for y in range(2):
        for x in range(3):
            image[10 * y : 10 * y + 10, 10 * x : 10 * x + 10] = 40 * (3 * y + x)
    tiles = tile_image(image, 10, min_num=6, max_num=6)
    assert [np.asarray(tile)[5, 5, 0] for tile in tiles[:-1]] == [0, 40, 80, 120, 160, 200]
    assert len(tiles) == 7
    assert tiles[-1].size == (10, 10)
    assert len(tile_image(image, 10, min_num=6, max_num=6, use_thumbnail=False)) == 6
    assert len(tile_image(image, 10, max_num=1)) == 1, "one tile needs no thumbnail"


# --------------------------------------------------------------------------- files


def test_load_image(tmp_path):
    frame = noise(20, 30, 3)
    for name, mode in (("a.png", "RGB"), ("grey.png", "L"), ("alpha.png", "RGBA"), ("p.gif", "P")):
        Image.fromarray(frame).convert(mode).save(tmp_path / name)
        assert load_image(tmp_path / name).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(load_image(str(tmp_path / "a.png"))), frame)


def test_bad_images(tmp_path, monkeypatch):
    Image.fromarray(noise(200, 300, 3)).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    for name, words in {
        "no.png": "no such image; check the path",
        "empty.png": "the file is empty",
        "folder": "not a file",
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
    }.items():
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert words in str(caught.value)
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"large.png: .*shrink the image"):
        load_image(tmp_path / "large.png")
