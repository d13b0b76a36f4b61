"""What the runs of this folder are trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distime.processing.video import encode_video
from distime.toy.tiny import write_tiny_checkpoint

WORDS = ["when does the red square appear ? at . yes no what is seen"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A tiny checkpoint, two videos, and eight items about them."""
    folder = tmp_path_factory.mktemp("work space")  # with a blank, as users have
    write_tiny_checkpoint(folder / "tiny", WORDS, hidden_size=32, num_layers=2, num_frames=4)
    noise = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4"):
        frames = noise.integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
        encode_video(folder / name, frames, fps=4)
    lines = []
    for number in range(8):
        start = number / 4
        turns = [
            {"from": "human", "value": "<video>\nwhen does the red square appear?"},
            {"from": "gpt", "value": "at <TIME_STAMP>."},
        ]
        video = "ab"[number % 2] + ".mp4"
        lines.append({"video": video, "tgt": [start, start + 1], "conversations": turns})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"tiny": {"root": ".", "annotation": "train.jsonl"}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder
