"""Every setting of `distime annotate`; what does not fit is refused before any work starts.

The command line (`distime.cli.annotate`) is made from the fields below. torch is not imported here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from distime.benchmarks.base import SettingsError
from distime.evaluate.settings import DTYPES, expect_flag, setting

STAGES = ("events", "locations", "similarity", "selection", "dialogues")
"""What is done, in order."""


@dataclass(kw_only=True)
class AnnotationSettings:
    """Settings of one run; the text behind each default says what it means.

    Raises:
        SettingsError: something does not fit; names the flag and the mend.
    """

    videos: Path = setting(None, "folder of videos")
    out: Path = setting(None, "folder for all that is made")
    stages: tuple[str, ...] = setting(STAGES, f"some of {','.join(STAGES)} (all)")
    captioner: tuple[str, ...] = setting(
        (),
        "says what happens: model:FOLDER, openai:MODEL, file:CAPTIONS.jsonl or distime:CHECKPOINT, "
        "with a name as KIND:NAME=...; can be given several times",
    )
    locator: tuple[str, ...] = setting(
        (),
        "says when: distime:CHECKPOINT, clip:FOLDER, file:NAME=PREDICTIONS.jsonl or "
        "told:CAPTIONER; can be given several times",
    )
    similarity: Path | None = setting(
        None, "folder of a dual encoder that compares each location's frames with the words"
    )

    events_per_video: int = setting(7, "events that captioning models are asked for")
    fps: float = setting(1.0, "frames for each second of a video that captioners and encoders see")
    max_frames: int = setting(32, "most frames of a video in a question to a captioning model")
    curve_frames: int = setting(256, "most frames of a video that an encoder compares with words")
    prompt: Path | None = setting(None, "file with another question for captioning models")
    max_new_tokens: int = setting(512, "longest answer of a captioning model in tokens")
    same_words: float = setting(
        0.8, "captions of a video that share this part of their words are one event"
    )

    min_agreement: float | None = setting(None, "least mean IoU over pairs of locators")
    min_confidence: float | None = setting(None, "least confidence of the best location")
    min_similarity: float | None = setting(None, "least similarity of the best location")
    min_score: float | None = setting(None, "least score of the best location")

    templates: Path | None = setting(None, "file of dialogue templates (annotate/templates.txt)")
    held_out: float = setting(0.1, "share of the videos that is kept out of training")

    limit: int | None = setting(None, "only the first N videos")
    overwrite: bool = setting(False, "discard what earlier runs left of these stages")
    max_failures: int = setting(0, "videos that may fail in a stage before the exit code is not 0")
    batch_size: int = setting(16, "most questions that a DisTime checkpoint answers at once")
    workers: int = setting(4, "threads that decode videos ahead, for each process")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N (auto: cuda if there is one)")
    dtype: str = setting(
        "auto", "precision (auto: bf16 on cuda, fp32 on cpu)", choices=("auto", *DTYPES)
    )

    concurrency: int = setting(8, "requests to an endpoint at once, for each process")
    timeout: float = setting(60.0, "seconds until a request to an endpoint is given up")
    retries: int = setting(5, "times that a failed request to an endpoint is tried again")
    picture_side: int = setting(512, "longest side in pixels of a frame sent to an endpoint")

    def __post_init__(self):
        for one in fields(self):
            value = getattr(self, one.name)
            if "Path" in one.type and isinstance(value, str):
                setattr(self, one.name, Path(value))
            if one.type.startswith("tuple"):
                setattr(self, one.name, tuple(value))
        if self.videos is None:
            raise SettingsError("VIDEOS: give a folder of videos")
        if self.out is None:
            raise SettingsError("--out: give a folder for all that is made")
        if self.out.exists() and not self.out.is_dir():
            raise SettingsError(f"--out {self.out}: it is a file; give a folder")
        self._check_stages()
        self._check_numbers()

    def _check_stages(self) -> None:
        for stage in self.stages:
            expect_flag(stage in STAGES, "stages", stage, f"choose of {', '.join(STAGES)}")
        self.stages = tuple(stage for stage in STAGES if stage in self.stages)
        for stage, flag in (("events", "captioner"), ("locations", "locator")):
            if stage in self.stages and not getattr(self, flag):
                raise SettingsError(
                    f"--{flag}: give at least one, such as --{flag} distime:CHECKPOINT, or leave "
                    f"{stage} out of --stages"
                )

    def _check_numbers(self) -> None:
        for name in ("max_frames", "curve_frames", "events_per_video", "max_new_tokens", "limit",
                     "batch_size", "workers", "concurrency", "picture_side"):  # fmt: skip
            value = getattr(self, name)
            expect_flag(value is None or value >= 1, name, value, "give 1 or more")
        for name in ("fps", "timeout"):
            expect_flag(getattr(self, name) > 0, name, getattr(self, name), "give more than 0")
        for name in ("max_failures", "retries"):
            expect_flag(getattr(self, name) >= 0, name, getattr(self, name), "give 0 or more")
        for name in ("same_words", "min_agreement", "min_confidence", "min_similarity",
                     "min_score"):  # fmt: skip
            value = getattr(self, name)
            expect_flag(value is None or 0 <= value <= 1, name, value, "give a number from 0 to 1")
        fits = 0 <= self.held_out < 1
        expect_flag(fits, "held_out", self.held_out, "give a share from 0 to below 1")
        fits = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)
        expect_flag(fits, "device", self.device, "give auto, cpu, cuda or cuda:N")
        expect_flag(self.dtype in ("auto", *DTYPES), "dtype", self.dtype,
                f"choose one of auto, {', '.join(DTYPES)}")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in values.items()
        }

    @property
    def captioner_names(self) -> list[str]:
        """What the captioners of this run are called; none where it has no stage events."""
        return [naming(spec)[1] for spec in self.captioner] if "events" in self.stages else []


def naming(spec: str) -> tuple[str, str, str]:
    """Return kind, name and target of `KIND:TARGET` or `KIND:NAME=TARGET`; '' where there is none.

    Without a name it is the kind and the last part of the target.
    """
    kind, _, target = spec.partition(":")
    named, equals, rest = target.partition("=")
    if equals and re.fullmatch(r"[\w.-]+", named) and not Path(target).exists():
        return kind, named, rest
    stem = re.sub(r"[^\w.-]+", "_", Path(target).name.removesuffix(".jsonl")).strip("._")
    return kind, f"{kind}-{stem or 'here'}", target
