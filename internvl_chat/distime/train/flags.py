"""The flags of training, without torch: their names, their help, and what each may be.

`distime.train.command_line` checks words against them; `distime.train.arguments` makes values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from distime.errors import DisTimeError
from distime.model.heads import HEAD_NAMES
from distime.train import objectives


class ArgumentError(DisTimeError):
    """A flag, a path or a combination is wrong; the message names the flag and the mend."""


@dataclass(frozen=True)
class Limits:
    """What the value of a flag may be.

    Attributes:
        kind: `int` or `float` for a number, `str` for a word.
        at_least: smallest number.
        above: number that it must exceed.
        at_most: largest number.
        below: number that it must not reach.
        also: numbers that are allowed besides, such as -1 for "not given".
        one_of: words to choose from.
    """

    kind: type = float
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()
    one_of: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Check a value, or the word for it.

        Raises:
            ArgumentError: it is not allowed; says what is.
        """
        if self.one_of:
            if str(value).lower() not in self.one_of:
                raise ArgumentError(f"--{name} {value}: choose {self}")
            return
        try:
            number = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        bounds = (
            math.isfinite(number),
            self.at_least is None or number >= self.at_least,
            self.above is None or number > self.above,
            self.at_most is None or number <= self.at_most,
            self.below is None or number < self.below,
        )
        if number not in self.also and not all(bounds):
            raise ArgumentError(f"--{name} {value}: give {self}")

    def __str__(self) -> str:
        if self.one_of:
            return " or ".join(word for word in self.one_of if word)
        parts = {
            "at least": self.at_least,
            "more than": self.above,
            "up to": self.at_most,
            "below": self.below,
        }
        said = " and ".join(
            f"{word} {value:g}" for word, value in parts.items() if value is not None
        )
        said = " ".join([said or "a number", *(f"(or {value:g})" for value in self.also)])
        return f"{said}, a whole number" if self.kind is int else said


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class ModelFlags:
    """What is trained"""

    model_name_or_path: str = _flag(
        "", "checkpoint to start from: ours, a base model, DisTime, checkpoint-N, an adapter"
    )
    conv_style: str = _flag("internvl2_5", "chat template; internvl2_5 is the only one")
    time_head: str | None = _flag(
        None,
        "how the model says when: distribution (as published, and as base models begin), "
        "regression, two numbers, or text, digits in its words",
    )
    reencode_times: bool | None = _flag(
        None, "embed a predicted time as what it says (True), or leave the token as it is"
    )
    dec_reg: int | None = _flag(None, "reg_max: bins of the time distributions minus one")
    enc_sigma: float | None = _flag(
        None, "standard deviation of the time encoder's Gaussians, in bins"
    )
    layer_num: int | None = _flag(None, "linear layers of the time encoder and decoder")
    freeze_llm: bool = _flag(False, "do not train the language model's own weights")
    freeze_backbone: bool = _flag(False, "do not train the vision tower")
    freeze_mlp: bool = _flag(False, "do not train the projector")
    freeze_time_head: bool = _flag(False, "do not train time encoder and time decoder")
    use_llm_lora: int = _flag(0, "rank of LoRA on the language model, 0 for none")
    lora_alpha: int | None = _flag(None, "LoRA alpha; twice the rank unless given")
    lora_dropout: float = _flag(0.05, "dropout before LoRA")
    train_embeddings: str = _flag(
        "full",
        "of input embeddings and output head: full; new_rows, those of DisTime's tokens; or none",
    )
    export: str = _flag("full", "write the full model, an adapter of the start checkpoint, or both")
    export_dtype: str = _flag(
        "auto",
        "precision of the result: auto is that of --bf16 or --fp16, else of training; checkpoints "
        "to resume from keep the precision of training",
    )
    attn_implementation: str | None = _flag(None, "sdpa, flash_attention_2, flex_attention, eager")
    text_loss_weight: float | None = _flag(None, "weight of the text loss")
    distribution_loss_weight: float | None = _flag(None, "weight of the distribution loss")
    iou_loss_weight: float | None = _flag(None, "weight of the IoU loss")
    distance_loss_weight: float | None = _flag(
        None, "weight of the distance from the truth, with --time_head regression"
    )
    distribution_loss_reduction: str | None = _flag(None, "sum (published) or mean over boundaries")


@dataclass
class DataFlags:
    """What it is trained on"""

    meta_path: str = _flag("", "meta file: a JSON object of sources, see docs/DATA.md")
    min_num_frame: int = _flag(16, "frames of a video are drawn from this number ...")
    max_num_frame: int = _flag(16, "... to this one")
    fps: float | None = _flag(
        None, "frames for each second of a video, in place of these numbers; needs --max_frames"
    )
    max_frames: int | None = _flag(None, "most frames that --fps gives")
    max_video_tokens: int | None = _flag(
        None, "budget of visual tokens for a video: frames get smaller on Qwen, fewer elsewhere"
    )
    image_size: int | None = _flag(None, "side in pixels of the square that InternVL makes")
    sampling_method: str = _flag(
        "rand",
        "frames: rand, one from each of equal segments; middle of each; eval, as evaluation does; "
        "by_time, as rand, but by the time where the frame rate varies",
    )
    max_seq_length: int = _flag(8192, "longest sequence, in tokens")
    share_video_prefix: bool = _flag(False, "train the items of a video behind one copy of it")
    max_items_per_group: int = _flag(64, "most items behind one copy")
    packing: bool = _flag(False, "pack several samples into rows of --max_seq_length tokens")
    dynamic_image_size: bool = _flag(True, "cut still images into tiles")
    max_dynamic_patch: int | None = _flag(
        None, "tiles of a still image; as the checkpoint says (6) unless given"
    )
    use_thumbnail: bool | None = _flag(
        None, "add the whole image as one more tile; as the checkpoint says (True) unless given"
    )
    cache_samples: bool = _flag(False, "keep prepared samples in memory (small data sets)")
    cache_features: str = _flag("", "folder that keeps what the frozen vision tower makes of media")
    sampling_seed: int = _flag(42, "of frames drawn and other chances in a sample")
    max_bad_samples: int = _flag(100, "stop when more samples than this are broken")


@dataclass
class RunFlags:
    """How it is trained: our own"""

    resume: str = _flag("", "auto: go on from the newest checkpoint in --output_dir; none: do not")
    group_by_length: bool = _flag(False, "bring samples of like token length together")
    num_train_epochs: float = _flag(1.0, "passes over the data; a fraction takes a part")
    logging_steps: float = _flag(10, "steps between two lines of the log")
    cpu_threads: int | None = _flag(None, "threads of torch on a CPU")
    checkpoint_parts: str = _flag(
        "",
        "parts that --gradient_checkpointing recomputes: vision, language, or both with a comma; "
        "both unless given",
    )
    recompute_if_needed: bool = _flag(
        False,
        "leave out --gradient_checkpointing where the activations, computed beforehand, fit into "
        "the memory of the GPU",
    )
    eval_path: str = _flag("", "held-out grounding questions: a meta file or a jsonl file")
    eval_limit: int | None = _flag(None, "evaluate on the first that many of them")
    eval_max_new_tokens: int = _flag(64, "longest answer in evaluation, in tokens")
    remove_unused_columns: bool = _flag(False, "always off: the collator's columns are all used")
    ddp_find_unused_parameters: bool = _flag(False, "off: every parameter always has a gradient")


@dataclass
class ObjectiveFlags:
    """What it learns from"""

    objective: str = _flag(
        "supervised",
        "supervised, the annotated answers; expected_reward, besides them the exact expectation of "
        "a reward; grpo, the rewards of its own sampled answers: see docs/REWARDS.md",
    )
    rewards: list[str] | None = _flag(
        None, "NAME or FILE.py:FUNCTION of each, behind it :WEIGHT unless that is 1 (tiou)"
    )
    reward_weight: float | None = _flag(None, "of the expected reward beside the losses (1)")
    num_generations: int | None = _flag(None, "answers that are sampled to each question (8)")
    max_completion_length: int | None = _flag(None, "longest of them, in tokens (128)")
    temperature: float | None = _flag(None, "at which words and times are drawn (1)")
    num_iterations: int | None = _flag(None, "steps on the same sampled answers (1)")
    clip_epsilon: float | None = _flag(
        None, "how far a probability may leave that of the draw, for --num_iterations (0.2)"
    )
    kl_weight: float | None = _flag(None, "of the distance to the start model; needs LoRA (0)")
    scale_rewards: bool | None = _flag(
        None, "divide rewards by their standard deviation within a question (False)"
    )


INHERITED = {
    "output_dir": "where checkpoints, the result and run.json go",
    "per_device_train_batch_size": "samples in one forward pass of one process (8)",
    "gradient_accumulation_steps": "forward passes of a process in one step (1)",
    "max_steps": "steps of the run, in place of --num_train_epochs",
    "learning_rate": "its peak (5e-5)",
    "lr_scheduler_type": "linear (default), cosine, constant_with_warmup, ...",
    "warmup_steps": "steps, or below 1 the share of all steps (0)",
    "weight_decay": "of AdamW (0)",
    "adam_beta1": "of AdamW (0.9)",
    "adam_beta2": "of AdamW (0.999)",
    "adam_epsilon": "of AdamW (1e-8)",
    "max_grad_norm": "longest gradient, 0 for no limit (1)",
    "bf16": "train in bfloat16",
    "deepspeed": "configuration of DeepSpeed, such as zero_stage2_config.json",
    "gradient_checkpointing": "recompute activations, to save memory",
    "use_cpu": "train on the CPU, also where there is a GPU",
    "seed": "of the order of samples and of dropout (42)",
    "dataloader_num_workers": "processes that prepare samples, for each process that trains (0)",
    "dataloader_prefetch_factor": "batches each of them has ready; enough for a step unless given",
    "save_strategy": "steps (default), epoch, best, no",
    "save_steps": "steps between two checkpoints (500)",
    "save_total_limit": "checkpoints that are kept; all unless given",
    "eval_steps": "steps between two evaluations; at the end alone unless given",
    "per_device_eval_batch_size": "questions about a video answered at once (8)",
    "load_best_model_at_end": "end with the checkpoint of the best evaluation",
    "report_to": "tensorboard, wandb, none (default)",
}
"""Flags of `transformers.TrainingArguments` that people set, in our words."""

FURTHER = frozenset(
    """
    activation_checkpointing activation_checkpointing_kwargs dataloader_multiprocessing_context
    dataloader_pin_memory ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_static_graph
    ddp_timeout debug disable_tqdm do_eval do_predict do_train eval_delay eval_on_start
    eval_strategy fp16 fsdp fsdp_config full_determinism gradient_checkpointing_kwargs
    greater_is_better include_num_input_tokens_seen liger_kernel_config local_rank log_level
    log_level_replica log_on_each_node logging_first_step logging_strategy lr_scheduler_kwargs
    metric_for_best_model neftune_noise_alpha optim optim_args optim_target_modules
    parallelism_config project run_name save_on_each_node save_only_model skip_memory_metrics
    tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
    trackio_bucket_id trackio_space_id trackio_static_space_id use_liger_kernel
    """.split()  # noqa: SIM905
)
"""Its other flags that have an effect here; transformers describes them."""

_COUNT = Limits(int, at_least=1)
_NUMBER = Limits(int, at_least=0)
_NOT_NEGATIVE = Limits(at_least=0)
_SHARE = Limits(at_least=0, below=1)
_POSITIVE = Limits(above=0)
LIMITS = {
    "time_head": Limits(str, one_of=HEAD_NAMES),
    "dec_reg": _COUNT,
    "enc_sigma": _POSITIVE,
    "layer_num": _COUNT,
    "use_llm_lora": _NUMBER,
    "lora_alpha": _COUNT,
    "lora_dropout": _SHARE,
    "export": Limits(str, one_of=("full", "adapter", "both")),
    "export_dtype": Limits(str, one_of=("auto", "float32", "bfloat16", "float16")),
    "text_loss_weight": _NOT_NEGATIVE,
    "distribution_loss_weight": _NOT_NEGATIVE,
    "iou_loss_weight": _NOT_NEGATIVE,
    "distance_loss_weight": _NOT_NEGATIVE,
    "distribution_loss_reduction": Limits(str, one_of=("sum", "mean")),
    "min_num_frame": _COUNT,
    "max_num_frame": _COUNT,
    "fps": _POSITIVE,
    "max_frames": _COUNT,
    "max_video_tokens": _COUNT,
    "image_size": _COUNT,
    "sampling_method": Limits(str, one_of=("rand", "middle", "eval", "by_time")),
    "max_seq_length": _COUNT,
    "max_items_per_group": _COUNT,
    "max_dynamic_patch": _COUNT,
    "sampling_seed": Limits(int),
    "max_bad_samples": _NUMBER,
    "resume": Limits(str, one_of=("", "auto", "none")),
    "num_train_epochs": _POSITIVE,
    "logging_steps": _POSITIVE,
    "cpu_threads": _COUNT,
    "objective": Limits(str, one_of=objectives.NAMES),
    "reward_weight": _POSITIVE,
    "num_generations": Limits(int, at_least=2),
    "max_completion_length": _COUNT,
    "temperature": _POSITIVE,
    "num_iterations": _COUNT,
    "clip_epsilon": Limits(above=0, below=1),
    "kl_weight": _NOT_NEGATIVE,
    "eval_limit": _COUNT,
    "eval_max_new_tokens": _COUNT,
    "per_device_train_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "max_steps": Limits(int, at_least=1, also=(-1,)),
    "learning_rate": _POSITIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "adam_epsilon": _POSITIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "seed": Limits(int, at_least=0, below=2**32),
    "dataloader_num_workers": _NUMBER,
    "dataloader_prefetch_factor": _COUNT,
    "save_steps": _POSITIVE,
    "save_total_limit": _COUNT,
    "eval_steps": _POSITIVE,
    "per_device_eval_batch_size": _COUNT,
    "ddp_timeout": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
    "eval_delay": _NOT_NEGATIVE,
    "neftune_noise_alpha": _POSITIVE,
    "torch_empty_cache_steps": _COUNT,
    "local_rank": Limits(int, at_least=-1),
}
"""What the flags may be that are numbers, or words from a short list."""

GROUPS = (ModelFlags, DataFlags, ObjectiveFlags, RunFlags)


def known_flags() -> set[str]:
    """Return the names of all flags that have an effect here."""
    own = {one.name for group in GROUPS for one in fields(group)}
    return own | INHERITED.keys() | FURTHER


def check_values(arguments: Any) -> None:
    """Check the values of a dataclass whose fields are flags.

    Raises:
        ArgumentError: the first that is not allowed.
    """
    for one in fields(arguments):
        value = getattr(arguments, one.name)
        if one.name in LIMITS and value is not None:
            LIMITS[one.name].check(one.name, value)
