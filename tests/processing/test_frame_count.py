"""How many frames a video is shown with, and how many tokens."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distime import DisTime, DisTimeForConditionalGeneration, DisTimeProcessor
from distime.backbones import BACKBONES
from distime.backbones.base import ProcessorError
from distime.backbones.internvl import ProcessorSettings
from distime.backbones.qwen_vl.patches import within_budget
from distime.cli import main
from distime.evaluate import Settings, SettingsError
from distime.processing.frame_count import frame_count
from distime.processing.sampling import VideoSample
from distime.processing.video import encode_video
from distime.toy.tiny import write_tiny_checkpoint

WORDS = ["when does the red square appear ?"]
SECONDS, RATE = 12, 4


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (SECONDS * RATE, 192, 384, 3), np.uint8)
    encode_video(path, frames, fps=RATE)
    return path


@pytest.fixture(scope="module", params=["internvl", "llava_onevision", "qwen3_vl", "qwen2_5_vl"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny_checkpoint(
        folder,
        WORDS,
        hidden_size=32,
        num_layers=1,
        num_frames=6,
        backbone=request.param,
        image_size=224,
    )
    return folder


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("internvl")
    write_tiny_checkpoint(folder, WORDS, hidden_size=32, num_layers=1, num_frames=6, image_size=112)
    return folder


# ------------------------------------------------------------------ the function


@given(
    st.floats(0, 1e5), st.integers(1, 64), st.floats(0.01, 60), st.integers(1, 2048),
    st.integers(1, 20000), st.sampled_from([0.5, 1, 64, 196, 256]), st.sampled_from([0, 1]),
)  # fmt: skip
def test_what_holds_of_every_count(seconds, number, fps, most, budget, tokens, besides):
    assert frame_count(seconds, number) == number
    by_time = frame_count(seconds, number, fps=fps, max_frames=most)
    assert 1 <= by_time <= most
    assert by_time in (most, max(1, round(seconds * fps)))
    cost = {"max_tokens": budget, "tokens_per_frame": tokens, "tokens_besides": besides}
    if budget < tokens + besides:
        with pytest.raises(ValueError, match=f"max_video_tokens {budget}: one frame takes"):
            frame_count(seconds, number, fps=fps, max_frames=most, **cost)
        return
    for options, without in (({}, number), ({"fps": fps, "max_frames": most}, by_time)):
        count = frame_count(seconds, number, **options, **cost)
        assert 1 <= count <= without and count * tokens + besides <= budget
        assert count == without or (count + 1) * tokens + besides > budget


def test_published_budgets():
    """2 frames a second and 14,336 tokens, as TimeLens has them, at 224 px on InternVL."""
    cost = {"fps": 2, "max_frames": 512, "max_tokens": 14336, "tokens_per_frame": 64}
    assert [frame_count(s, 16, **cost) for s in (0.1, 10, 60, 3600)] == [1, 20, 120, 224]


@given(
    st.integers(28, 2000), st.integers(28, 2000), st.integers(1, 300), st.integers(1, 20000),
    st.integers(1, 700),
)  # fmt: skip
def test_frames_get_smaller_to_keep_to_a_budget(width, height, slots, budget, tokens):
    budget = max(budget, slots)
    shown = (28 * tokens, 28)
    wide, tall = within_budget(shown, (width, height), slots, 28, budget)
    assert wide % 28 == tall % 28 == 0 and min(wide, tall) >= 28
    assert wide * tall // 784 * slots <= budget
    assert within_budget(shown, (width, height), slots, 28, None) == shown
    if tokens * slots <= budget:
        assert (wide, tall) == shown


# ------------------------------------------------------------------ the settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 2}, "fps 2 without max_frames: give both"),
        ({"max_frames": 64}, "max_frames 64 without fps: give both"),
        ({"fps": 0, "max_frames": 64}, "fps must be above 0"),
        ({"fps": float("inf"), "max_frames": 64}, "fps must be above 0"),
        ({"fps": 2, "max_frames": 0}, "max_frames must be at least 1"),
        ({"max_video_tokens": 0}, "max_video_tokens must be at least 1"),
        ({"image_size": 225}, "image_size 225 is not a multiple of 28"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ProcessorError, match=message):
        ProcessorSettings(**settings)


def test_a_budget_that_is_less_than_a_frame(internvl, capsys):
    processor = DisTimeProcessor.from_pretrained(internvl)
    before = processor.settings
    with pytest.raises(ProcessorError, match="max_video_tokens 3: one frame takes 4"):
        processor.adjust(max_video_tokens=3)
    assert processor.settings == before
    with pytest.raises(ProcessorError, match="num_frames 4 and fps: give a number"):
        processor.adjust(num_frames=4, fps=2, max_frames=8)
    asked = ["--checkpoint", str(internvl), "--max-video-tokens", "3"]
    assert main(["ground", "a.mp4", "red", *asked]) == 1
    assert "max_video_tokens 3: one frame takes 4" in capsys.readouterr().err


def test_a_bound_that_is_no_time_is_named_as_ever(internvl, video):
    processor = DisTimeProcessor.from_pretrained(internvl)
    processor.adjust(fps=2, max_frames=9)
    with pytest.raises(ValueError, match="a bound of nan seconds is no time"):
        processor.load_video(video, bound=(float("nan"), 2.0))


def test_a_size_that_a_backbone_has_not(tmp_path):
    write_tiny_checkpoint(tmp_path, WORDS, hidden_size=32, num_layers=1, backbone="qwen3_vl")
    with pytest.raises(ProcessorError, match="image_size 224: qwen3_vl has no such setting"):
        DisTimeProcessor.from_pretrained(tmp_path).adjust(image_size=224)


def test_every_backbone_names_settings_that_it_has():
    for backbone in BACKBONES.values():
        known = backbone.settings_class.__dataclass_fields__.keys()
        assert {"num_frames", "fps", "max_frames", "max_video_tokens"} <= set(backbone.adjustable)
        assert set(backbone.adjustable) <= known


# ------------------------------------------------------------------ videos


def test_frames_by_the_second(folder, video):
    processor = DisTimeProcessor.from_pretrained(folder)
    assert len(processor.load_video(video).times) == 6
    processor.adjust(fps=1, max_frames=100)
    sample = processor.load_video(video)
    assert len(sample.times) == SECONDS
    assert np.diff(sample.times).tolist() == pytest.approx([1] * (SECONDS - 1), abs=0.26)
    assert len(processor.load_video(video, bound=(2.0, 6.0)).times) == 4
    assert len(processor.load_video(video, 3).times) == 3  # what a call asks for holds
    assert processor.expected_media(video, None) == processor.video_media(sample)
    assert processor.expected_media(video, 3) == processor.video_media(
        processor.load_video(video, 3)
    )
    processor.adjust(max_frames=5)
    assert len(processor.load_video(video).times) == 5
    processor.adjust(num_frames=7)
    assert len(processor.load_video(video).times) == 7 and processor.settings.fps is None


@pytest.mark.parametrize("budget", [17, 40, 100])
def test_no_video_is_over_its_budget(folder, video, budget):
    processor = DisTimeProcessor.from_pretrained(folder)
    before = processor.video_media(processor.load_video(video, 24)).num_image_tokens
    assert before > 100
    processor.adjust(max_video_tokens=budget)
    for number in (1, 5, 24):
        sample = processor.load_video(video, number)
        media = processor.video_media(sample)
        assert media.num_image_tokens <= budget
        assert processor.expected_media(video, number) == media
        inputs = processor(sample, "when ?")
        placeholders = torch.isin(
            inputs["input_ids"], torch.tensor(processor.token_ids.placeholders)
        )
        assert placeholders.sum() == media.num_image_tokens
    # Where frames have any size all of them are there, until a slot has a single token.
    squares = budget // 16
    assert len(sample.times) == (24 if processor.backbone.frames_have_sizes else squares)
    if budget > 17:
        processor.adjust(max_video_tokens=budget - 16)
        with pytest.raises(
            ProcessorError, match=f"frames in memory.*max_video_tokens {budget - 16}"
        ):
            many = replace(sample, frames=sample.frames[[0] * 400], times=[0.0] * 400)
            processor.load_video(many)


def test_odd_shapes_keep_to_the_budget(folder):
    processor = DisTimeProcessor.from_pretrained(folder)
    if not processor.backbone.frames_have_sizes:
        pytest.skip("frames are squares")
    processor.adjust(max_video_tokens=10)
    for height, width in ((30, 900), (900, 30), (500, 31), (1, 150)):
        for frames in (1, 3, 19):
            sample = VideoSample(
                np.zeros((frames, height, width, 3), np.uint8), [0.0] * frames, 9.0, [0] * frames
            )
            assert processor.video_media(sample).num_image_tokens <= 10
            assert processor(sample, "when ?")["pixel_values"].shape[0] > 0


def test_image_size_of_internvl(internvl, video, tmp_path):
    wide = DisTime.from_pretrained(internvl, device="cpu")
    narrow = DisTime.from_pretrained(internvl, device="cpu", image_size=56, fps=1, max_frames=4)
    assert wide.processor.settings.tokens_per_image == 4
    assert narrow.processor.settings.tokens_per_image == narrow.model.config.image_seq_length == 1
    inputs = narrow.processor(video, "when ?")
    assert inputs["pixel_values"].shape == (4, 3, 56, 56)
    with torch.no_grad():
        features = narrow.model.encode_images(inputs["pixel_values"])
        small = torch.nn.functional.interpolate(
            positions(wide.model), (2, 2), mode="bicubic", align_corners=False
        )
    assert features.shape[0] == 4
    # The same as a tower whose positions were interpolated beforehand.
    cut = DisTimeForConditionalGeneration.from_pretrained(internvl)
    embeddings = cut.model.vision_tower.embeddings
    flat = small.flatten(2).transpose(1, 2)
    own = torch.cat([embeddings.position_embeddings[:, :1], flat], 1)
    embeddings.position_embeddings = torch.nn.Parameter(own)
    with torch.no_grad():
        expected = cut.encode_images(inputs["pixel_values"])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    answer = narrow.ground(video, "the red square", max_new_tokens=4)
    assert answer.duration == SECONDS
    narrow.save_pretrained(tmp_path)
    again = DisTime.from_pretrained(tmp_path, device="cpu")
    assert again.processor.settings == narrow.processor.settings
    assert again.model.config.image_seq_length == 1
    assert "1 frames a second, at most 4, each 56 x 56" in (tmp_path / "README.md").read_text()


def positions(model):
    grid = model.model.vision_tower.embeddings.position_embeddings[:, 1:]
    side = int(grid.shape[1] ** 0.5)
    return grid.transpose(1, 2).unflatten(2, (side, side))


# ------------------------------------------------------------------ every way in


@pytest.mark.parametrize("style", ["dashes", "underscores"])
def test_the_command_line(internvl, video, style, capsys, monkeypatch):
    counted = []
    load = DisTimeProcessor.load_video

    def spy(self, *arguments, **options):
        sample = load(self, *arguments, **options)
        counted.append((len(sample.times), self.settings.image_size))
        return sample

    monkeypatch.setattr(DisTimeProcessor, "load_video", spy)
    flags = ["--fps", "2", "--max-frames", "20", "--max-video-tokens", "10", "--image-size", "56"]
    if style == "underscores":
        flags = [flag.replace("-", "_").replace("__", "--", 1) for flag in flags]
    asked = ["--checkpoint", str(internvl), "--max-new-tokens", "2", "--device", "cpu"]
    assert main(["ground", str(video), "red", *asked, *flags]) == 0
    assert counted[0] == (10, 56)
    assert main(["ground", str(video), "red", *asked, *flags[:2]]) == 1
    assert "fps 2 without max_frames" in capsys.readouterr().err
    assert main(["ground", str(video), "red", *asked, *flags, "--num-frames", "3"]) == 1
    assert "--num-frames 3 and --fps 2" in capsys.readouterr().err


@pytest.fixture
def run(internvl, tmp_path):
    (tmp_path / "a.json").write_text("[]")
    names = ("annotation", "ground_truth")
    paths = dict.fromkeys(names, tmp_path / "a.json") | {"video_root": tmp_path}
    return {"checkpoint": internvl, "benchmark": "charades", "device": "cpu", **paths}


def test_evaluation_goes_as_published_unless_asked_otherwise(run, tmp_path):
    plain = Settings(**run)
    assert plain.num_segments == 16 and not {"fps", "image_size"} & plain.fingerprint().keys()
    asked = Settings(**run, fps=2.0, max_frames=64, max_video_tokens=4000, image_size=56)
    assert asked.num_segments is None and asked.fingerprint()["fps"] == 2
    assert asked.frames == {
        "fps": 2, "max_frames": 64, "max_video_tokens": 4000, "image_size": 56,
    }  # fmt: skip
    assert Settings.recorded(asked.to_dict()).frames == asked.frames


def test_evaluation_goes_as_the_checkpoint_was_trained(run, internvl, tmp_path):
    processor = DisTimeProcessor.from_pretrained(internvl)
    processor.adjust(fps=2, max_frames=64)
    processor.save_pretrained(tmp_path / "trained")
    (tmp_path / "trained" / "config.json").write_text((internvl / "config.json").read_text())
    trained = {**run, "checkpoint": tmp_path / "trained"}
    assert (Settings(**trained).fps, Settings(**trained).max_frames) == (2, 64)
    assert Settings(**trained, max_frames=8).max_frames == 8
    number = Settings(**trained, num_segments=16)
    assert number.num_segments == 16 and number.fps is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 2.0}, "--fps 2.0.*--max-frames"),
        ({"fps": -1.0, "max_frames": 4}, "--fps -1.0.*more than 0"),
        ({"fps": 2.0, "max_frames": 4, "num_segments": 16}, "--fps 2.0.*not both"),
        ({"max_frames": 4}, "--max-frames 4.*--fps"),
        ({"max_video_tokens": 0}, "--max-video-tokens 0.*1 or more"),
    ],
)
def test_evaluation_settings_that_do_not_go_together(run, change, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**run, **change)


def test_settings_from_before_are_read(internvl, tmp_path):
    processor = DisTimeProcessor.from_pretrained(internvl)
    processor.save_pretrained(tmp_path)
    file = tmp_path / "processor_config.json"
    values = json.loads(file.read_text())
    for name in ("fps", "max_frames", "max_video_tokens"):
        assert values.pop(name) is None
    file.write_text(json.dumps(values))
    assert DisTimeProcessor.from_pretrained(tmp_path).settings == processor.settings
