"""Small videos, captions of them, and tiny models to annotate them with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from annotate.tiny_encoders import write_captioner, write_dual_encoder
from answering import write_answering_checkpoint
from distime.annotate.annotation_settings import AnnotationSettings
from distime.annotate.run import AnnotationRun, run_stages
from distime.processing.video import encode_video

NAMES = ("a.mp4", "deep er/b.mp4", "c.mp4", "d.mp4")
SECONDS = 6


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A folder with four videos of six seconds."""
    root = tmp_path_factory.mktemp("raw videos")
    for number, name in enumerate(NAMES):
        frames = np.random.default_rng(number).integers(0, 255, (SECONDS * 4, 32, 32, 3))
        frames[:, :, :, number % 3] //= 4
        (root / name).parent.mkdir(exist_ok=True)
        encode_video(root / name, frames.astype(np.uint8), 4)
    (root / "notes.txt").write_text("no video")
    return root


@pytest.fixture(scope="session")
def captions(tmp_path_factory) -> Path:
    """What happens in the videos; the last caption of each repeats the first."""
    path = tmp_path_factory.mktemp("captions") / "captions.jsonl"
    colors = ("red", "green", "blue")
    with path.open("w") as file:
        for name in NAMES:
            said = [f"The {color} square is visible." for color in colors]
            said.append("the red  square is visible")
            file.write(json.dumps({"video": name, "captions": said}) + "\n")
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A DisTime with random weights that names times and writes captions."""
    return write_answering_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """A CLIP with random weights."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    write_dual_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def captioner(tmp_path_factory) -> Path:
    """A Llava with random weights."""
    folder = tmp_path_factory.mktemp("models") / "llava"
    write_captioner(folder)
    return folder


@pytest.fixture
def annotate(videos, tmp_path):
    """Run the stages; by default into the same folder each time."""

    def annotate(**options):
        settings = {"videos": videos, "out": tmp_path / "out", "workers": 1} | options
        return run_stages(AnnotationRun(AnnotationSettings(**settings)))

    return annotate


def lines(path: Path) -> list[dict]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
