"""A tiny checkpoint and tiny videos for evaluations from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from distime.data.synthetic import charades_annotation, charades_database, write_videos
from distime.processing.processor import DisTimeProcessor, ProcessorSettings
from distime.processing.tokenizer import add_special_tokens, encode, load_tokenizer
from processing.tiny_tokenizers import write_qwen2
from tiny_models import make_tiny_model

INTERNVL_CHAT = Path(__file__).resolve().parents[2] / "internvl_chat"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A random model that names times and options, and ends its answers now and then."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny model"
    write_qwen2(folder)
    tokenizer = load_tokenizer(folder)
    add_special_tokens(tokenizer)
    settings = ProcessorSettings(image_size=16, patch_size=4, num_frames=4, system_message="Hi.")
    processor = DisTimeProcessor(tokenizer, settings)
    ids = processor.token_ids
    text = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    vision = {
        "model_type": "internvl_vision", "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
        "attention_bias": True,
    }  # fmt: skip
    model = make_tiny_model(
        text_config=text.to_dict(), vision_config=vision, image_token_id=ids.img_context,
        image_seq_length=settings.tokens_per_image, time_token_id=ids.time_stamp,
        frame_time_token_id=ids.frame_time_ref,
    )  # fmt: skip
    likely = [ids.time_stamp, ids.im_end, *encode(tokenizer, "(),.012AB")]
    with torch.no_grad():
        rare = torch.ones(len(tokenizer), dtype=torch.bool)
        rare[likely] = False
        model.lm_head.weight[rare] *= 0.1
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A folder with five short synthetic videos, and what they show."""
    folder = tmp_path_factory.mktemp("videos of shapes")
    return folder, write_videos(folder, 5, seed=3, workers=1)


@pytest.fixture
def charades(tmp_path, videos) -> list[str]:
    """Flags for a Charades-STA run on the synthetic videos."""
    root, specs = videos
    return [
        *("--annotation", write_json(tmp_path / "test_float.json", charades_annotation(specs))),
        *("--ground-truth", write_json(tmp_path / "truth.json", charades_database(specs))),
        *("--video-root", str(root)),
        *FAST,
    ]


FAST = ["--num-segments", "4", "--max-new-tokens", "12", "--device", "cpu", "--workers", "1"]


def write_json(path: Path, value) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def evaluate_sh(*arguments, gpus=1, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run evaluate.sh in a process of its own, one thread per process."""
    return subprocess.run(
        ["sh", str(INTERNVL_CHAT / "evaluate.sh"), *map(str, arguments)],
        env={**os.environ, "GPUS": str(gpus), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )
