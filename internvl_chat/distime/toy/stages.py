"""One stage of training a toy, and its evaluation: by the scripts that a cluster runs.

For whatever trains toys: the quickstart, and measurements that compare two ways of training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from distime import paths
from distime.benchmarks import benchmarks
from distime.benchmarks.base import Benchmark
from distime.errors import DisTimeError
from distime.model.heads import DEFAULT_HEAD, saved_head


class StageError(DisTimeError):
    """A stage could not be trained; the message says which."""


@dataclass(frozen=True)
class Stage:
    """How long and how one stage trains.

    Attributes:
        steps: optimizer steps.
        batch_size: groups of items in a step.
        items: most items about one video in a group.
        schedule: of the learning rate.
        learning_rate: its peak.
        sees: whether the vision tower is trained; it has learned to see after two stages.
    """

    steps: int
    batch_size: int
    items: int = 64
    schedule: str = "constant_with_warmup"
    learning_rate: float = 3e-3
    sees: bool = False


def train_stage(
    start: Path, out: Path, meta: Path, stage: Stage, num_frames: int, seed: int, *flags: str | Path
) -> None:
    """Train a toy for one stage.

    Args:
        start: checkpoint to start from.
        out: folder of the trained one.
        meta: of the lessons, such as one of `distime.toy.curriculum.write_curriculum`.
        stage: how long and how.
        num_frames: of a video.
        seed: of the order of the samples.
        *flags: of training (docs/TRAINING.md); they win over those given here.

    Raises:
        subprocess.CalledProcessError: training failed; its output says why.
    """
    # Two processes of one thread each: a model this small gains nothing from a second thread.
    processes = 2 if (os.cpu_count() or 1) > 1 and stage.batch_size % 2 == 0 else 1
    _call(
        "shell/distime/launch.sh",
        *stage_flags(start, out, meta, stage, num_frames, seed, *flags),
        GPUS=str(processes),
        BATCH_SIZE=str(stage.batch_size),
        PER_DEVICE_BATCH_SIZE=str(stage.batch_size // processes),
        OMP_NUM_THREADS="1",
        OMP_WAIT_POLICY="PASSIVE",
    )


def train_stage_here(
    start: Path, out: Path, meta: Path, stage: Stage, num_frames: int, seed: int, *flags: str | Path
) -> None:
    """As `train_stage`, but in this process: many short stages then start without delay.

    Raises:
        StageError: training failed; the log says why.
    """
    from distime.train import finetune

    here = ("--per_device_train_batch_size", str(stage.batch_size))
    here += ("--use_cpu", "True", "--cpu_threads", "1")
    words = stage_flags(start, out, meta, stage, num_frames, seed, *here, *flags)
    if code := finetune.main(words):
        raise StageError(f"{out}: training ended with exit code {code}; the log says why")


def stage_flags(
    start: Path, out: Path, meta: Path, stage: Stage, num_frames: int, seed: int, *flags: str | Path
) -> list[str]:
    """Flags of training with which `train_stage` trains a stage, those of its batches apart."""
    head = dict(zip(flags, flags[1:], strict=False)).get("--time_head") or saved_head(start)
    own = {
        "model_name_or_path": start,
        "output_dir": out,
        "meta_path": meta,
        "max_steps": stage.steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": 20,
        "adam_beta2": 0.98,
        "freeze_backbone": not stage.sees,
        "group_by_length": True,
        "max_grad_norm": 1,
        "share_video_prefix": True,
        "max_items_per_group": stage.items,
        "min_num_frame": num_frames,
        "max_num_frame": num_frames,
        "sampling_method": "middle",
        "cache_samples": True,
        "seed": seed,
        "logging_steps": 50,
        "save_strategy": "no",
        "report_to": "none",
    }
    if head in (None, DEFAULT_HEAD):
        # A mean over boundaries learns faster here than the published sum over 32.
        own["distribution_loss_reduction"] = "mean"
    words = [word for name, value in own.items() for word in (f"--{name}", value)]
    return list(map(str, [*words, *flags]))


def evaluate_stage(
    checkpoint: Path,
    annotation: Path,
    videos: Path,
    out: Path,
    ground_truth: Path,
    num_frames: int,
    max_new_tokens: int = 16,
) -> dict[str, float]:
    """Answer a toy benchmark's questions and score the answers.

    Args:
        checkpoint: to evaluate.
        annotation: of the questions, from `synthetic_benchmark().of_synthetic`.
        videos: folder with their videos.
        out: folder for the answers (results.json) and the scores (score.json).
        ground_truth: what they are scored against, from the same.
        num_frames: of a video.
        max_new_tokens: longest answer.

    Returns:
        the benchmark's metrics, in percent.

    Raises:
        subprocess.CalledProcessError: evaluation failed; its output says why.
    """
    _call(
        "evaluate.sh", checkpoint, synthetic_benchmark().name,
        "--annotation", annotation,
        "--video-root", videos,
        "--out-dir", out,
        "--ground-truth", ground_truth,
        "--num-segments", str(num_frames),
        "--max-new-tokens", str(max_new_tokens),
    )  # fmt: skip
    return json.loads((out / "score.json").read_text())["metrics"]


def synthetic_benchmark() -> type[Benchmark]:
    """The benchmark that can be made of synthetic videos."""
    return next(one for one in benchmarks().values() if one.of_synthetic is not None)


def frames_per_slot(backbone: str) -> int:
    """Frames that stand behind one time: lessons count in slots, so that a model sees as many times
    on every backbone."""
    from distime.backbones import BACKBONES

    return BACKBONES[backbone].frames_per_slot if backbone in BACKBONES else 1


def _call(script: str, *arguments: str | Path, **environment: str) -> None:
    environment = {"PYTHON": sys.executable, "GPUS": "1"} | environment
    subprocess.run(
        ["sh", str(paths.scripts() / script), *map(str, arguments)],
        check=True,
        env=os.environ | environment,
    )
