"""Arguments of fine-tuning, checked before anything is loaded. Published flags keep their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import HfArgumentParser, TrainingArguments

from distime.data.dataset import DataSettings
from distime.errors import DisTimeError
from distime.model.config import DISTRIBUTION_REDUCTIONS
from distime.train.evaluation import METRICS

EMBEDDING_MODES = ("full", "new_rows", "none")
EXPORTS = ("full", "adapter", "both")


class ArgumentError(DisTimeError):
    """A flag, a path or a combination is wrong; the message names the flag and the mend."""


def _help(text: str, default):
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    """What is trained."""

    model_name_or_path: str = _help("checkpoint to start from: ours, base InternVL2.5, DisTime", "")
    conv_style: str = _help("chat template; internvl2_5 is the only one", "internvl2_5")
    dec_reg: int | None = _help("reg_max: bins of the time distributions minus one", None)
    enc_sigma: float | None = _help("standard deviation of the time encoder's Gaussians", None)
    layer_num: int | None = _help("linear layers of the time encoder and decoder", None)
    freeze_llm: bool = _help("do not train the language model's own weights", False)
    freeze_backbone: bool = _help("do not train the vision tower", False)
    freeze_mlp: bool = _help("do not train the projector", False)
    use_llm_lora: int = _help("rank of LoRA on the language model, 0 for none", 0)
    lora_alpha: int | None = _help("LoRA alpha; twice the rank unless given", None)
    lora_dropout: float = _help("dropout before LoRA", 0.05)
    train_embeddings: str = _help(
        "of input embeddings and output head: full; new_rows, those of DisTime's tokens; or none",
        "full",
    )
    export: str = _help("write the full model, an adapter of the start checkpoint, or both", "full")
    attn_implementation: str | None = _help("sdpa, flash_attention_2, flex_attention, eager", None)
    text_loss_weight: float | None = _help("weight of the text loss", None)
    distribution_loss_weight: float | None = _help("weight of the distribution loss", None)
    iou_loss_weight: float | None = _help("weight of the IoU loss", None)
    distribution_loss_reduction: str | None = _help("sum (published) or mean over boundaries", None)

    def __post_init__(self):
        if not self.model_name_or_path:
            raise ArgumentError("--model_name_or_path is required: the checkpoint to start from")
        if not (Path(self.model_name_or_path) / "config.json").is_file():
            raise ArgumentError(
                f"--model_name_or_path {self.model_name_or_path}: no config.json there; give the "
                "folder of a downloaded checkpoint"
            )
        if self.conv_style != "internvl2_5":
            raise ArgumentError(f"--conv_style {self.conv_style}: only internvl2_5 is known")
        if self.use_llm_lora < 0:
            raise ArgumentError(f"--use_llm_lora {self.use_llm_lora}: a rank is 0 or more")
        if self.use_llm_lora and not self.freeze_llm:
            raise ArgumentError(
                "--use_llm_lora needs --freeze_llm True: LoRA stands in for training the language "
                "model's own weights"
            )
        if self.lora_alpha is None:
            self.lora_alpha = 2 * self.use_llm_lora
        if self.use_llm_lora and self.lora_alpha <= 0:
            raise ArgumentError(f"--lora_alpha {self.lora_alpha}: LoRA needs more than 0")
        if not 0 <= self.lora_dropout < 1:
            raise ArgumentError(f"--lora_dropout {self.lora_dropout}: choose from 0 to below 1")
        mode = str(self.train_embeddings).lower()
        self.train_embeddings = {"true": "full", "false": "none"}.get(mode, mode)
        for flag, choices in (("train_embeddings", EMBEDDING_MODES), ("export", EXPORTS)):
            if getattr(self, flag) not in choices:
                raise ArgumentError(
                    f"--{flag} {getattr(self, flag)}: choose {' or '.join(choices)}"
                )
        if self.distribution_loss_reduction not in (None, *DISTRIBUTION_REDUCTIONS):
            raise ArgumentError(
                f"--distribution_loss_reduction {self.distribution_loss_reduction}: choose "
                + " or ".join(DISTRIBUTION_REDUCTIONS)
            )

    @property
    def lora_scale(self) -> float | None:
        """LoRA's alpha / rank; None without LoRA."""
        return self.lora_alpha / self.use_llm_lora if self.use_llm_lora else None

    @property
    def config_overrides(self) -> dict[str, object]:
        """Fields of `DisTimeConfig` that flags change."""
        loss_flags = (
            "text_loss_weight",
            "distribution_loss_weight",
            "iou_loss_weight",
            "distribution_loss_reduction",
        )
        time_flags = {"reg_max": "dec_reg", "enc_sigma": "enc_sigma", "layer_num": "layer_num"}
        values = {name: getattr(self, name) for name in loss_flags}
        values |= {name: getattr(self, flag) for name, flag in time_flags.items()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class DataArguments(DataSettings):
    """What it is trained on; the rest is `distime.data.dataset.DataSettings`."""

    meta_path: str = _help("meta file: a JSON object of sources, see docs/DATA.md", "")
    packing: bool = _help("pack several samples into rows of --max_seq_length tokens", False)
    max_bad_samples: int = _help("stop when more samples than this are broken", 100)

    def __post_init__(self):
        super().__post_init__()
        if not self.meta_path:
            raise ArgumentError("--meta_path is required: the meta file of the training data")
        if not Path(self.meta_path).is_file():
            raise ArgumentError(f"--meta_path {self.meta_path}: no such file")

    @property
    def settings(self) -> DataSettings:
        """The part that the data set needs."""
        return DataSettings(**{f.name: getattr(self, f.name) for f in fields(DataSettings)})


@dataclass
class TrainArguments(TrainingArguments):
    """How it is trained: `transformers.TrainingArguments` with our defaults."""

    remove_unused_columns: bool = _help("always off: the collator's columns are all used", False)
    ddp_find_unused_parameters: bool = _help("off: every parameter always has a gradient", False)
    group_by_length: bool = _help("bring samples of like token length together", False)
    num_train_epochs: float = _help("passes over the data; a fraction takes a part", 1.0)
    logging_steps: float = _help("steps between two lines of the log", 10)
    resume: str = _help("auto: go on from the newest checkpoint in --output_dir; none: do not", "")
    cpu_threads: int | None = _help("threads of torch on a CPU", None)
    eval_path: str = _help("held-out grounding questions: a meta file or a jsonl file", "")
    eval_limit: int | None = _help("evaluate on the first that many of them", None)
    eval_max_new_tokens: int = _help("longest answer in evaluation, in tokens", 64)
    checkpoint_parts: str = _help(
        "parts that --gradient_checkpointing recomputes: vision, language, or both with a comma; "
        "both unless given",
        "",
    )

    def __post_init__(self):
        if self.deepspeed:
            _keep_deepspeed_from_compiling()
        self._check_evaluation()
        super().__post_init__()
        self._check_reporters()
        self.remove_unused_columns = False
        if self.resume not in ("", "none", "auto"):
            raise ArgumentError(f"--resume {self.resume}: choose auto or none")
        if self.resume_from_checkpoint:
            raise ArgumentError(
                "--resume_from_checkpoint is not used: --resume auto takes the newest checkpoint "
                "in --output_dir (delete newer ones to go further back)"
            )

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        device = super().device
        # Processes on a CPU are given "cpu:0", from which transformers 5.17 cannot resume.
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def rows_per_step(self) -> int:
        """Rows of the plan that an optimizer step takes over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    def _check_evaluation(self) -> None:
        if not self.eval_path:
            for flag in ("eval_strategy", "eval_steps", "load_best_model_at_end", "eval_limit"):
                if getattr(self, flag) not in (None, False, "no"):
                    raise ArgumentError(
                        f"--{flag} needs --eval_path: the held-out questions to evaluate on"
                    )
            return
        if not Path(self.eval_path).is_file():
            raise ArgumentError(f"--eval_path {self.eval_path}: no such file")
        for flag in ("eval_limit", "eval_max_new_tokens", "per_device_eval_batch_size"):
            if getattr(self, flag) is not None and getattr(self, flag) < 1:
                raise ArgumentError(f"--{flag} {getattr(self, flag)}: give at least 1")
        if self.eval_strategy == "no":
            # To the trainer the run is one epoch, see `finetune.run`: this evaluates at its end.
            self.eval_strategy = "steps" if self.eval_steps else "epoch"
        elif self.eval_strategy == "epoch" and self.num_train_epochs > 1:
            raise ArgumentError(
                "--eval_strategy epoch is once at the end of the run: give --eval_strategy steps "
                "and --eval_steps, or leave it out"
            )
        names = [f"eval_{name}" for name in METRICS]
        if self.load_best_model_at_end:
            self.metric_for_best_model = self.metric_for_best_model or names[0]
        best = self.metric_for_best_model
        if best is not None and f"eval_{best.removeprefix('eval_')}" not in names:
            raise ArgumentError(f"--metric_for_best_model {best}: choose one of {', '.join(names)}")

    def _check_reporters(self) -> None:
        for name in {"tensorboard", "wandb"}.intersection(self.report_to):
            if find_spec(name) is None:
                raise ArgumentError(
                    f"--report_to {name}: {name} is not installed; pip install {name}, or leave it "
                    "out"
                )


def _keep_deepspeed_from_compiling() -> None:
    """Leave communication to gloo on a machine without an accelerator.

    DeepSpeed would compile a kernel for it when processes are connected, anew on every start, for
    minutes and with a compiler that may not be there.
    """
    if not torch.accelerator.is_available():
        from deepspeed import ops

        ops.__compatible_ops__["deepspeed_shm_comm"] = False


def parse(
    argv: Sequence[str] | None = None,
) -> tuple[ModelArguments, DataArguments, TrainArguments]:
    """Parse and check a command line.

    Raises:
        ArgumentError, DataError: a value is wrong; the message names the flag and the mend.
    """
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainArguments))
    return parser.parse_args_into_dataclasses(args=argv)
