"""What does not fit is refused before any work, by the name of the flag and with the mend."""

from pathlib import Path

import pytest
import torch

from distime.evaluate import Settings, SettingsError
from distime.evaluate.settings import checkpoint_digest
from evaluate.conftest import INTERNVL_CHAT


@pytest.fixture
def good(tmp_path) -> dict:
    for name in ("checkpoint", "videos"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    (tmp_path / "queries.json").write_text("[]")
    return {
        "checkpoint": tmp_path / "checkpoint",
        "benchmark": "charades",
        "annotation": tmp_path / "queries.json",
        "ground_truth": tmp_path / "queries.json",
        "video_root": str(tmp_path / "videos"),
    }


def test_defaults_are_filled_in(good):
    settings = Settings(**good)
    assert settings.out_dir == INTERNVL_CHAT / "results" / "Charades-STA" / "checkpoint"
    assert settings.num_segments == 16 and settings.video_root == Path(good["video_root"])
    assert Settings(**good | {"benchmark": "longvideobench"}).num_segments == 32
    assert Settings(**good | {"benchmark": "nextgqa", "stage": 1}).score is False
    if not torch.cuda.is_available():
        assert settings.dtype == "fp32"
    del good["annotation"], good["ground_truth"]
    defaults = Settings(**good | {"benchmark": "mvbench", "annotation": good["checkpoint"]})
    assert defaults.ground_truth == defaults.annotation


@pytest.mark.parametrize(
    ("change", "flag", "mend"),
    [
        ({"benchmark": "charade"}, "benchmark", "charades"),
        ({"benchmark": "nextgqa"}, "stage", "1 or 2"),
        ({"stage": 1}, "stage", "leave it out"),
        ({"checkpoint": None}, "--checkpoint", "folder"),
        ({"checkpoint": "nowhere"}, "--checkpoint nowhere", "config.json"),
        ({"annotation": "nowhere.json"}, "--annotation nowhere.json", "prepare"),
        ({"video_root": "nowhere"}, "--video-root nowhere", "folder"),
        ({"ground_truth": "nowhere.json"}, "--ground-truth nowhere.json", "--no-score"),
        ({"limit": 0}, "--limit 0", "1 or more"),
        ({"batch_size": 0}, "--batch-size 0", "1 or more"),
        ({"max_failures": -1}, "--max-failures -1", "0 or more"),
        ({"device": "gpu"}, "--device gpu", "cuda"),
        ({"device": "cpu", "dtype": "fp16"}, "--dtype fp16", "fp32"),
        ({"dtype": "int8"}, "--dtype int8", "bf16"),
        ({"device": "cpu", "quantize": "8bit"}, "--quantize 8bit", "GPU"),
        ({"device": "cpu", "attn": "flash_attention_2"}, "--attn", "sdpa"),
        ({"subtitles": "."}, "--subtitles .", "longvideobench"),
        ({"timestamps": "a.json"}, "--timestamps a.json", "nextgqa 2"),
        ({"benchmark": "mvbench", "plots": 3}, "--plots 3", "leave it out"),
    ],
)
def test_what_does_not_fit(change, flag, mend, good):
    with pytest.raises(SettingsError) as caught:
        Settings(**good | change)
    assert flag in str(caught.value) and mend in str(caught.value)


def test_the_metrics_file_is_looked_for_beside_the_annotation(good, tmp_path):
    del good["ground_truth"]
    with pytest.raises(SettingsError, match="charades_sta_test.json"):
        Settings(**good)
    (tmp_path / "charades_sta_test.json").write_text("{}")
    assert Settings(**good).ground_truth == tmp_path / "charades_sta_test.json"


def test_other_weights_have_another_digest(tmp_path):
    weights = bytearray(3_000_000)
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = checkpoint_digest(tmp_path)
    assert checkpoint_digest(tmp_path) == before
    for place in (0, len(weights) // 2):
        changed = bytearray(weights)
        changed[place : place + 20_000] = b"x" * 20_000
        (tmp_path / "model.safetensors").write_bytes(changed)
        assert checkpoint_digest(tmp_path) != before


def test_an_adapter_is_a_checkpoint_and_other_folders_say_what_they_are(good):
    (good["checkpoint"] / "config.json").unlink()
    with pytest.raises(SettingsError, match="is an empty folder"):
        Settings(**good)
    for name in ("adapter.json", "adapter_config.json"):
        (good["checkpoint"] / name).write_text("{}")
        assert Settings(**good).checkpoint == good["checkpoint"]
        with pytest.raises(SettingsError, match="holds checkpoints, but is none: give one of"):
            Settings(**good | {"checkpoint": good["checkpoint"].parent})
        (good["checkpoint"] / name).unlink()
