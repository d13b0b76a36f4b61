"""Arguments of fine-tuning, checked before anything is loaded. Published flags keep their names."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import HfArgumentParser, TrainingArguments

from distime.backbones.base import CommonSettings
from distime.data.dataset import DataSettings
from distime.model.heads import DEFAULT_HEAD, HeadError, head_class, refuse_other_head, saved_head
from distime.model.heads.base import TimeHead
from distime.train import command_line, flags
from distime.train.evaluation import METRICS
from distime.train.flags import ArgumentError, DataFlags, ModelFlags, ObjectiveFlags, RunFlags

logger = logging.getLogger(__name__)

EMBEDDING_MODES = ("full", "new_rows", "none")


@dataclass
class ModelArguments(ModelFlags):
    """What is trained."""

    def __post_init__(self):
        flags.check_values(self)
        command_line.check_start(self.model_name_or_path)
        if self.conv_style != "internvl2_5":
            raise ArgumentError(f"--conv_style {self.conv_style}: only internvl2_5 is known")
        if self.use_llm_lora and not self.freeze_llm:
            raise ArgumentError(
                "--use_llm_lora needs --freeze_llm True: LoRA stands in for training the language "
                "model's own weights"
            )
        if self.lora_alpha is None:
            self.lora_alpha = 2 * self.use_llm_lora
        mode = str(self.train_embeddings).lower()
        self.train_embeddings = {"true": "full", "false": "none"}.get(mode, mode)
        if self.train_embeddings not in EMBEDDING_MODES:
            raise ArgumentError(
                f"--train_embeddings {self.train_embeddings}: choose {' or '.join(EMBEDDING_MODES)}"
            )
        self._check_head()
        losses = [f"{name}_loss_weight" for name in ("text", *self.head.losses)]
        if not any(weight is None or weight > 0 for weight in map(self.__dict__.get, losses)):
            *most, last = [f"--{name}" for name in losses]
            raise ArgumentError(
                f"{', '.join(most)} and {last} are all 0, so nothing would be learned: give one of "
                "them"
                if most
                else f"{last} is 0, so nothing would be learned: give more"
            )

    @property
    def head_name(self) -> str:
        """The time head that is trained: the one asked for, or that of the start checkpoint."""
        return self.time_head or saved_head(Path(self.model_name_or_path)) or DEFAULT_HEAD

    @property
    def head(self) -> type[TimeHead]:
        """Its class."""
        return head_class(self.head_name)

    def _check_head(self) -> None:
        """Refuse a start checkpoint of another head, and flags that the head has no use for."""
        if self.time_head is not None:
            self.time_head = self.time_head.lower()
            try:
                refuse_other_head(Path(self.model_name_or_path), self.time_head)
            except HeadError as error:
                raise ArgumentError(f"--time_head {self.time_head}: {error}") from None
        head = self.head
        used = {f"{loss}_loss_{what}" for loss in head.losses for what in ("weight", "reduction")}
        flags_of_heads = (
            "distribution_loss_weight",
            "iou_loss_weight",
            "distance_loss_weight",
            "distribution_loss_reduction",
        )
        unused = [flag for flag in flags_of_heads if flag not in used]
        if head.in_words:
            unused += ["reencode_times", "dec_reg", "enc_sigma", "layer_num"]
        for flag in unused:
            if getattr(self, flag) is not None:
                raise ArgumentError(
                    f"--{flag} {getattr(self, flag)}: the time head {self.head_name} has no "
                    "use for it; leave it out"
                )

    @property
    def lora_scale(self) -> float | None:
        """LoRA's alpha / rank; None without LoRA."""
        return self.lora_alpha / self.use_llm_lora if self.use_llm_lora else None

    @property
    def config_overrides(self) -> dict[str, object]:
        """Fields of `DisTimeConfig` that flags change."""
        same_name = (
            "time_head",
            "reencode_times",
            "text_loss_weight",
            "distribution_loss_weight",
            "iou_loss_weight",
            "distance_loss_weight",
            "distribution_loss_reduction",
        )
        time_flags = {"reg_max": "dec_reg", "enc_sigma": "enc_sigma", "layer_num": "layer_num"}
        values = {name: getattr(self, name) for name in same_name}
        values |= {name: getattr(self, flag) for name, flag in time_flags.items()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class DataArguments(DataFlags, DataSettings):
    """What it is trained on; what the data set needs of it is `DataSettings`."""

    def __post_init__(self):
        flags.check_values(self)
        super().__post_init__()
        command_line.check_meta(self.meta_path)
        if self.fps is not None and self._asks_for_numbers:
            raise ArgumentError(
                f"--fps {self.fps:g} goes by the second: leave out --min_num_frame and "
                "--max_num_frame"
            )

    @property
    def processor_overrides(self) -> dict[str, object]:
        """Fields of `ProcessorSettings` that flags change; the result keeps them."""
        values = {"max_tiles": self.max_dynamic_patch, "use_thumbnail": self.use_thumbnail}
        return {name: value for name, value in values.items() if value is not None}

    def frame_settings(self, saved: CommonSettings) -> dict[str, object]:
        """What flags change of how videos are shown; the result keeps it.

        Args:
            saved: settings of the checkpoint to start from.
        """
        names = ("fps", "max_frames", "max_video_tokens", "image_size")
        given = {name: getattr(self, name) for name in names}
        if saved.fps is not None and self.fps is None and self._asks_for_numbers:
            given["num_frames"] = self.max_num_frame
        return given

    @property
    def _asks_for_numbers(self) -> bool:
        own = (self.min_num_frame, self.max_num_frame)
        return own != (DataSettings.min_num_frame, DataSettings.max_num_frame)

    @property
    def settings(self) -> DataSettings:
        """The part that the data set needs."""
        return DataSettings(**{f.name: getattr(self, f.name) for f in fields(DataSettings)})


@dataclass
class TrainArguments(RunFlags, ObjectiveFlags, TrainingArguments):
    """How it is trained: `transformers.TrainingArguments` with our defaults."""

    def __post_init__(self):
        flags.check_values(self)
        if self.deepspeed:
            self._check_deepspeed()
            _keep_deepspeed_from_compiling()
        self._check_evaluation()
        self._feed_a_whole_step()
        for name in ("", "_kwargs"):  # under its later name, which transformers asks for
            old, new = f"gradient_checkpointing{name}", f"activation_checkpointing{name}"
            if hasattr(self, new) and getattr(self, new) is None:
                setattr(self, new, getattr(self, old))
        try:
            super().__post_init__()
        except ValueError as error:  # what transformers says of its own flags
            raise ArgumentError(str(error)) from error
        self._check_reporters()
        self.remove_unused_columns = False
        if self.resume_from_checkpoint:
            raise ArgumentError(
                "--resume_from_checkpoint is not used: --resume auto takes the newest checkpoint "
                "in --output_dir (delete newer ones to go further back)"
            )
        if self.resume == "auto" and self.save_only_model:
            raise ArgumentError(
                "--save_only_model True writes checkpoints that --resume auto cannot go on from: "
                "leave it out, or give --resume none"
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

    def _check_deepspeed(self) -> None:
        if find_spec("deepspeed") is None:
            raise ArgumentError("--deepspeed: deepspeed is not installed; pip install deepspeed")
        if isinstance(self.deepspeed, str) and not self.deepspeed.startswith("{"):
            try:
                json.loads(Path(self.deepspeed).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ArgumentError(
                    f"--deepspeed {self.deepspeed}: {error}; give a file such as "
                    "internvl_chat/zero_stage2_config.json"
                ) from None

    def _feed_a_whole_step(self) -> None:
        """Let the workers have the batches of the next step ready while this one is computed."""
        workers, batches = self.dataloader_num_workers, self.gradient_accumulation_steps
        if workers and self.dataloader_prefetch_factor is None:
            self.dataloader_prefetch_factor = max(2, -(-batches // workers))
        elif not workers and self.dataloader_prefetch_factor is not None:
            raise ArgumentError(
                "--dataloader_prefetch_factor needs --dataloader_num_workers of at least 1"
            )

    def _check_evaluation(self) -> None:
        if not self.eval_path:
            questions = ("eval_strategy", "eval_steps", "load_best_model_at_end", "eval_limit")
            for flag in (*questions, "do_eval", "eval_on_start", "metric_for_best_model"):
                if getattr(self, flag) not in (None, False, "no"):
                    raise ArgumentError(
                        f"--{flag} needs --eval_path: the held-out questions to evaluate on"
                    )
            return
        if not Path(self.eval_path).is_file():
            raise ArgumentError(f"--eval_path {self.eval_path}: no such file")
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


class _Parser(HfArgumentParser):
    def error(self, message: str):
        raise ArgumentError(message)


def parse(
    argv: Sequence[str] | None = None,
) -> tuple[ModelArguments, DataArguments, TrainArguments]:
    """Parse and check a command line; published flags are taken too (`published_flags`).

    Raises:
        ArgumentError, DataError: a value is wrong; the message names the flag and the mend.
    """
    argv, notes = command_line.check(sys.argv[1:] if argv is None else argv)
    parser = _Parser((ModelArguments, DataArguments, TrainArguments), allow_abbrev=False)
    parsed = parser.parse_args_into_dataclasses(args=argv)
    if not parsed[-1].process_index:  # the first process says what all would say
        for note in notes:
            logger.info("%s", note)
    return parsed
