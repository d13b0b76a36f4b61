"""Every setting of an evaluation; what does not fit is refused before any work starts.

The command line (`distime.cli.evaluate`) is made from the fields below: name, default and help
stand here and nowhere else. torch is imported only to ask for a GPU, after everything else was
found to fit: a typo costs no seconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from distime import paths
from distime.benchmarks import add_file, benchmarks, find, of_file
from distime.benchmarks.base import Benchmark, SettingsError
from distime.files import read_json
from distime.model.attention import ATTENTION
from distime.model.heads import DEFAULT_HEAD, head_class, saved_head
from distime.model.hub import is_model, why_no_checkpoint

DTYPES = ("bf16", "fp16", "fp32")


def setting(default: Any, help: str, **argparse: Any) -> Any:
    """A field of a dataclass of settings, of which `distime.cli.settings_flags` makes a flag."""
    return field(default=default, metadata={"help": help, **argparse})


@dataclass(kw_only=True)
class Settings:
    """Settings of one run; the text behind each default says what it means.

    Paths may be given as strings. After construction every setting has its final value: defaults
    that depend on the benchmark are filled in.

    Raises:
        SettingsError: something is missing or does not fit; names the flag and the mend.
    """

    checkpoint: Path = setting(None, "folder of the checkpoint, published layout or our own")
    benchmark: str = setting(
        None, f"one of {', '.join(benchmarks())}, or a file of your own in the training format"
    )
    benchmark_file: Path | None = setting(
        None, "Python file that defines the benchmark, see docs/ADD_A_BENCHMARK.md"
    )
    stage: int | None = setting(None, "1 or 2, of a benchmark that is asked in stages")

    annotation: Path | None = setting(None, "annotation file (default: under data_example)")
    video_root: Path | None = setting(None, "folder of the videos (default: under data)")
    out_dir: Path | None = setting(
        None, "folder for the results (default: results/<Benchmark>/<checkpoint name>)"
    )
    ground_truth: Path | None = setting(
        None, "what the metric reads (default: the benchmark's file beside the annotation)"
    )
    score_options: dict[str, str] | None = setting(
        None, "what the metric of this benchmark can be told, by name (`Benchmark.score_options`)"
    )
    limit: int | None = setting(None, "ask only the first N queries")
    score: bool = setting(True, "leave out the metric")
    overwrite: bool = setting(False, "discard the answers that an earlier run left in --out-dir")
    max_failures: int = setting(0, "videos that may fail before the exit code is not 0")

    num_segments: int | None = setting(None, "frames of a video (default: as published, mostly 16)")
    fps: float | None = setting(
        None, "frames for each second of a video, in place of --num-segments; needs --max-frames"
    )
    max_frames: int | None = setting(None, "most frames that --fps gives")
    max_video_tokens: int | None = setting(None, "budget of visual tokens for a video")
    image_size: int | None = setting(None, "side of the square that InternVL makes of a frame")
    prompt: str = setting(
        "published",
        "words of the question: DisTime's as published, or those of the benchmark's owners",
        choices=("published", "owners"),
    )
    max_new_tokens: int = setting(1000, "longest answer in tokens")
    max_repeats: int = setting(
        0, "end an answer that says the same so many times running (0: never, as published)"
    )
    subtitles: Path | None = setting(
        None, "folder of the subtitle files, shown between the frames, of a benchmark that has them"
    )
    timestamps: Path | None = setting(
        None, "in stage 2: the times of stage 1 (default: those in --out-dir)"
    )

    batch_size: int = setting(32, "most queries answered at once")
    max_batch_tokens: int = setting(
        131072, "most tokens in memory at once, prompts and --max-new-tokens together"
    )
    share_prefix: bool = setting(
        True, "off: encode the video anew for every query, as published", choices=("on", "off")
    )
    workers: int = setting(4, "threads that decode videos ahead, for each process")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N (auto: cuda if there is one)")
    dtype: str = setting(
        "auto", "precision (auto: bf16 on cuda, fp32 on cpu)", choices=("auto", *DTYPES)
    )
    attn: str | None = setting(None, "attention kernels", choices=ATTENTION)
    quantize: str | None = setting(
        None, "language model in 8 or 4 bits, by bitsandbytes on cuda", choices=("8bit", "4bit")
    )

    dump_distributions: bool = setting(
        False, "also write the distributions of every time to distributions.jsonl"
    )
    plots: int = setting(0, "draw the N worst and the N best samples, with an index.html")

    def __post_init__(self):
        for one in fields(self):
            value = getattr(self, one.name)
            if "Path" in one.type and isinstance(value, str):
                setattr(self, one.name, Path(value))
        if self.benchmark_file is not None:
            add_file(self.benchmark_file)
        if by_file := of_file(str(self.benchmark)):
            expect_flag(self.annotation is None, "annotation", self.annotation,
                    f"{self.benchmark} is the annotation already; leave it out")  # fmt: skip
            self.annotation, self.benchmark = Path(self.benchmark), by_file.name
        if self.benchmark not in benchmarks():
            raise SettingsError(
                f"benchmark {self.benchmark!r}: choose one of {', '.join(benchmarks())}, or name "
                "a file of your own in the training format (.jsonl, or a meta file .json)"
            )
        self._check_choices()
        self._check_numbers()
        self._check_device_name()
        self._check_checkpoint()
        self._fill_in(find(self.benchmark))
        self._check_files(find(self.benchmark))
        self._check_device()

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Settings:
        """Restore the settings of a finished run from what `to_dict` gave.

        Nothing is checked again: the checkpoint may be gone by now.
        """
        settings = object.__new__(cls)
        for one in fields(cls):
            value = values.get(one.name, one.default)
            is_path = "Path" in one.type and value is not None
            setattr(settings, one.name, Path(value) if is_path else value)
        return settings

    @classmethod
    def options(cls) -> list[Field]:
        """The fields; `metadata["help"]` says what each means, `metadata["choices"]` may be."""
        return list(fields(cls))

    # ------------------------------------------------------------------ checks

    def _check_choices(self) -> None:
        for one in fields(self):
            choices, value = one.metadata.get("choices"), getattr(self, one.name)
            if choices and value is not None and not isinstance(value, bool):
                expect_flag(
                    value in choices, one.name, value, f"choose one of {', '.join(choices)}"
                )
        for name, value in (self.score_options or {}).items():
            known = name in find(self.benchmark).score_options
            expect_flag(known, name, value, f"{self.benchmark} does not take it; leave it out")
        expect_flag(
            self.prompt == "published" or find(self.benchmark).owners_prompt,
            "prompt",
            self.prompt,
            f"the owners' words are those of {self.benchmark} already, or unknown; leave it out",
        )
        stages = find(self.benchmark).stages
        if self.stage not in (stages or (None,)):
            mend = f"choose stage {' or '.join(map(str, stages))}" if stages else "leave it out"
            raise SettingsError(f"stage {self.stage}: {self.benchmark} has no such; {mend}")

    def _check_numbers(self) -> None:
        at_least_one = ("limit", "num_segments", "max_new_tokens", "batch_size", "workers")
        frames = ("max_frames", "max_video_tokens", "image_size")
        for name in (*at_least_one, *frames, "max_batch_tokens", "max_failures", "plots"):
            value, least = getattr(self, name), int(name not in ("max_failures", "plots"))
            if value is not None:
                expect_flag(value >= least, name, value, f"give {least} or more")
        repeats = self.max_repeats
        expect_flag(repeats == 0 or repeats >= 2, "max_repeats", repeats, "give 0, or 2 or more")
        if self.fps is not None:
            expect_flag(self.fps > 0, "fps", self.fps, "give more than 0")
            expect_flag(
                not self.num_segments, "fps", self.fps, "give it or --num-segments, not both"
            )

    def _check_device_name(self) -> None:
        name = self.device
        fits = name in ("auto", "cpu", "cuda") or name.startswith("cuda:") and name[5:].isdigit()
        expect_flag(fits, "device", name, "give auto, cpu, cuda or cuda:N")

    def _check_device(self) -> None:
        name = self.device
        on_cpu = name == "cpu" or not _has_gpu()
        expect_flag(
            not (on_cpu and name.startswith("cuda")),
            "device",
            name,
            "no GPU here; give cpu or auto",
        )
        if self.dtype == "auto":
            self.dtype = "fp32" if on_cpu else "bf16"
        expect_flag(
            not (on_cpu and self.dtype == "fp16"), "dtype", "fp16", "on a cpu give fp32 or bf16"
        )
        if self.quantize:
            expect_flag(not on_cpu, "quantize", self.quantize, "it needs a GPU")
            _needs("bitsandbytes", "quantize", self.quantize)
        if self.attn == "flash_attention_2":
            expect_flag(not on_cpu, "attn", self.attn, "it needs a GPU; give sdpa")
            _needs("flash_attn", "attn", self.attn)

    def _check_checkpoint(self) -> None:
        if self.checkpoint is None:
            raise SettingsError("--checkpoint: give the folder of a checkpoint")
        expect_flag(
            is_model(self.checkpoint),
            "checkpoint",
            self.checkpoint,
            f"it {why_no_checkpoint(self.checkpoint)} (`hf download NAME --local-dir FOLDER` "
            "fetches one)",
        )
        if self.dump_distributions:
            head = saved_head(self.checkpoint) or DEFAULT_HEAD
            expect_flag(
                head_class(head).has_distribution,
                "dump-distributions",
                self.dump_distributions,
                f"the time head {head} of the checkpoint has none; leave it out",
            )

    def _fill_in(self, benchmark: type[Benchmark]) -> None:
        self.annotation = self.annotation or (
            paths.home() / benchmark.annotation_root / benchmark.annotation
        )
        self.video_root = self.video_root or benchmark.video_folder(self.annotation)
        self._choose_frames(benchmark)
        folder = benchmark.result_folder(self.annotation)
        self.out_dir = self.out_dir or paths.results() / folder / self.checkpoint_name
        if self.ground_truth is None:
            beside = benchmark.ground_truth
            self.ground_truth = self.annotation.parent / beside if beside else self.annotation
        if self.stage not in (None, *benchmark.stages[-1:]):
            self.score = False  # an earlier stage has nothing to score yet

    def _choose_frames(self, benchmark: type[Benchmark]) -> None:
        """By the second where that is asked for, or was in training; else as published."""
        if self.num_segments is None:
            saved = self.checkpoint / "processor_config.json"
            trained = read_json(saved, "--checkpoint")[0] if saved.is_file() else {}
            self.fps = self.fps or trained.get("fps")
            self.max_frames = self.max_frames or (self.fps and trained.get("max_frames"))
        needed = self.fps is None or self.max_frames is not None
        expect_flag(needed, "fps", self.fps, "give --max-frames, too")
        expect_flag(
            self.fps is not None or self.max_frames is None,
            "max-frames",
            self.max_frames,
            "it belongs to --fps; leave it out, or give both",
        )
        if self.fps is None:
            self.num_segments = self.num_segments or benchmark.num_segments

    def _check_files(self, benchmark: type[Benchmark]) -> None:
        expect_flag(
            self.annotation.exists(),
            "annotation",
            self.annotation,
            "no such file; `distime prepare` makes it from the official ones",
        )
        expect_flag(
            self.video_root.is_dir(),
            "video-root",
            self.video_root,
            "no such folder; give the folder of the benchmark's videos",
        )
        expect_flag(
            not (self.score and not self.ground_truth.exists()),
            "ground-truth",
            self.ground_truth,
            "no such file; give the metric's annotation, or --no-score",
        )
        expect_flag(
            not (self.plots and not benchmark.has_times),
            "plots",
            self.plots,
            f"answers to {self.benchmark} name no times; leave it out",
        )
        for name in {name for one in benchmarks().values() for name in one.takes}:
            path = getattr(self, name)
            if path is not None:
                fits = name in benchmark.takes and benchmark.takes[name] in (None, self.stage)
                owners = ", ".join(
                    f"{one.name} {one.takes[name] or ''}".strip()
                    for one in benchmarks().values()
                    if name in one.takes
                )
                expect_flag(fits, name, path, f"only {owners} takes it; leave it out")
                expect_flag(path.exists(), name, path, "no such file or folder")

    # ------------------------------------------------------------------ what a run is

    @property
    def checkpoint_name(self) -> str:
        """Name of the checkpoint's folder."""
        return self.checkpoint.resolve().name

    @property
    def run_name(self) -> str:
        """Name of the run among those that share a result folder."""
        return self.benchmark if self.stage is None else f"{self.benchmark}_stage{self.stage}"

    def fingerprint(self) -> dict[str, Any]:
        """What decides the answers, so that answers of different runs are never mixed.

        Queries and bounds are not part of it: the journal knows them for every video. Neither is
        how work is cut up (batches, workers, processes): it changes no answer.
        """
        names = ("run_name", "num_segments", "max_new_tokens", "dtype", "attn")
        return {
            "checkpoint": checkpoint_digest(self.checkpoint),
            **{name: getattr(self, name) for name in (*names, "quantize")},
            "subtitles": self.subtitles is not None,
            **({"max_repeats": self.max_repeats} if self.max_repeats else {}),
            # Left out where they are not used: answers of earlier versions still belong.
            **({"prompt": self.prompt} if self.prompt != "published" else {}),
            **{name: value for name, value in self.frames.items() if value is not None},
        }

    @property
    def frames(self) -> dict[str, Any]:
        """How videos are shown, apart from `num_segments`; None is as the checkpoint says."""
        names = ("fps", "max_frames", "max_video_tokens", "image_size")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def checkpoint_digest(folder: Path, samples: int = 256, length: int = 4096) -> str:
    """A digest of a checkpoint: its configuration, and `samples` pieces of each weight file.

    Any training changes most of the pieces; reading all of them would take a minute for 8 B
    parameters.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model"):
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin"):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as stream:
                for number in range(samples):
                    stream.seek(size * number // samples)
                    digest.update(stream.read(length))
    return digest.hexdigest()[:16]


def expect_flag(condition: object, name: str, value: object, mend: str) -> None:
    """Raise ``SettingsError``, which names the flag and the mend, unless ``condition`` holds."""
    if not condition:
        raise SettingsError(f"--{name.replace('_', '-')} {value}: {mend}")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _needs(package: str, name: str, value: str) -> None:
    found = importlib.util.find_spec(package)
    expect_flag(found, name, value, f"it needs {package}: pip install {package.replace('_', '-')}")
