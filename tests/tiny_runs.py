"""Short fine-tuning runs on the `workspace` of tests/train/conftest.py."""

from __future__ import annotations

from pathlib import Path

import torch

from distime import DisTimeForConditionalGeneration
from distime.train import finetune

LAUNCH = str(Path(finetune.__file__).resolve().parents[2] / "shell/distime/launch.sh")


def command_line(workspace: Path, out: Path, *flags: object) -> list[str]:
    """The flags of a run; later ones override."""
    arguments = {
        "--model_name_or_path": workspace / "tiny", "--meta_path": workspace / "meta.json",
        "--output_dir": out, "--use_cpu": True, "--report_to": "none", "--save_strategy": "no",
        "--min_num_frame": 4, "--max_num_frame": 4, "--learning_rate": 1e-3,
        "--logging_steps": 1, "--disable_tqdm": True, "--dataloader_num_workers": 0,
        "--sampling_method": "middle",
    }  # fmt: skip
    return [str(word) for pair in arguments.items() for word in pair] + [str(f) for f in flags]


def train(workspace: Path, out: Path, *flags: object, expect: int = 0) -> None:
    """Fine-tune in this process."""
    assert finetune.main(command_line(workspace, out, *flags)) == expect


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    model = DisTimeForConditionalGeneration.from_pretrained(folder)
    return dict(model.named_parameters())
