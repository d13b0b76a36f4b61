"""A tiny checkpoint and tiny videos for evaluations from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from distime.evaluate import Settings, run
from distime.processing.processor import DisTimeProcessor, ProcessorSettings
from distime.processing.tokenizer import add_special_tokens, encode, load_tokenizer
from distime.toy.synthetic import write_videos
from evaluate.tiny_benchmarks import RUNS, settings_of
from tiny_models import make_tiny_model
from tiny_tokenizers import write_qwen2

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
    """A folder with four short synthetic videos, and what they show."""
    folder = tmp_path_factory.mktemp("videos of shapes")
    return folder, write_videos(folder, 4, seed=3, workers=1)


@pytest.fixture(scope="session")
def one_process(checkpoint, videos, tmp_path_factory):
    """The settings and the result of every run, all by one process."""
    results = {}
    out = tmp_path_factory.mktemp("one process")
    for name in RUNS:
        folder = tmp_path_factory.mktemp("annotations")
        settings = {"checkpoint": checkpoint, "out_dir": out / name.split()[0]}
        settings |= settings_of(name, folder, *videos)
        results[name] = (settings, run(Settings(**settings)))
    return results


def one_thread(**environment: str) -> dict[str, str]:
    """The environment of a process that leaves the other cores alone."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment}


def evaluate_sh(*arguments, gpus=1, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run evaluate.sh as a user would."""
    return subprocess.run(
        ["sh", str(INTERNVL_CHAT / "evaluate.sh"), *map(str, arguments)],
        env=one_thread(GPUS=str(gpus), **environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )


def flags(settings: dict) -> list[str]:
    """Settings as a command line has them, without the checkpoint and the benchmark."""
    words = []
    for name, value in settings.items():
        if name not in ("checkpoint", "benchmark", "stage"):
            words += ["--" + name.replace("_", "-"), str(value)]
    return words
