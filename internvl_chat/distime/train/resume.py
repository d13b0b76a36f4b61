"""What may change when a run goes on from a checkpoint, and what becomes of it: one table.

Every flag is in it. A change is applied, let pass where it touches nothing, or refused by name;
each is logged with the value before and now. A run resumed without changes equals one that was
never interrupted, byte for byte.
"""

from __future__ import annotations

import enum
import logging
import zipfile
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments, get_scheduler

from distime.files import FileError, read_json
from distime.train.distributed import ResumeError
from distime.train.flags import GROUPS, ArgumentError, known_flags

logger = logging.getLogger(__name__)


class OnResume(enum.Enum):
    """What becomes of a flag that changed since the checkpoint."""

    APPLIED = "takes effect from the next step on"
    SAMPLES = "takes effect, and the samples so far are the same"
    FREE = "touches neither samples nor updates"
    REFUSED = "cannot change within a run"


_BY_KIND = {
    OnResume.APPLIED: """
        learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm warmup_steps
        lr_scheduler_type lr_scheduler_kwargs lora_dropout text_loss_weight
        distribution_loss_weight iou_loss_weight distance_loss_weight distribution_loss_reduction
        neftune_noise_alpha rewards reward_weight num_generations max_completion_length
        temperature clip_epsilon kl_weight scale_rewards
    """,
    OnResume.SAMPLES: """
        meta_path min_num_frame max_num_frame fps max_frames max_video_tokens sampling_method
        max_seq_length share_video_prefix max_items_per_group packing dynamic_image_size
        max_dynamic_patch use_thumbnail sampling_seed group_by_length num_train_epochs max_steps
        seed per_device_train_batch_size gradient_accumulation_steps num_iterations
    """,
    OnResume.REFUSED: """
        conv_style image_size time_head reencode_times dec_reg enc_sigma layer_num freeze_llm
        freeze_backbone freeze_mlp freeze_time_head objective use_llm_lora lora_alpha
        train_embeddings optim optim_args optim_target_modules bf16 fp16
    """,
    OnResume.FREE: """
        model_name_or_path export export_dtype attn_implementation cache_samples cache_features
        max_bad_samples resume logging_steps cpu_threads checkpoint_parts eval_path eval_limit
        eval_max_new_tokens remove_unused_columns ddp_find_unused_parameters output_dir deepspeed
        gradient_checkpointing recompute_if_needed use_cpu dataloader_num_workers
        dataloader_prefetch_factor save_strategy save_steps save_total_limit eval_steps
        per_device_eval_batch_size load_best_model_at_end report_to activation_checkpointing
        activation_checkpointing_kwargs
        dataloader_multiprocessing_context dataloader_pin_memory ddp_backend ddp_broadcast_buffers
        ddp_bucket_cap_mb ddp_static_graph ddp_timeout debug disable_tqdm do_eval do_predict
        do_train eval_delay eval_on_start eval_strategy fsdp fsdp_config full_determinism
        gradient_checkpointing_kwargs greater_is_better include_num_input_tokens_seen
        liger_kernel_config local_rank log_level log_level_replica log_on_each_node
        logging_first_step logging_strategy metric_for_best_model parallelism_config project
        run_name save_on_each_node save_only_model skip_memory_metrics tf32 torch_compile
        torch_compile_backend torch_compile_mode torch_empty_cache_steps trackio_bucket_id
        trackio_space_id trackio_static_space_id use_liger_kernel
    """,
}
ON_RESUME = {name: kind for kind, names in _BY_KIND.items() for name in names.split()}
"""What becomes of each flag that changed. `--deepspeed` and the weights of `--model_name_or_path`
are checked against the checkpoint's own files."""

_SHAPE = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps")
_FOLLOWS_EVALUATION = ("reduce_lr_on_plateau", "greedy")
MEND = (
    "Put it back as it was, or start afresh with another --output_dir (and the trained model as "
    "--model_name_or_path, if you have one)"
)


def recorded_flags(*arguments: Any) -> dict[str, Any]:
    """Return the flags of a run as JSON can hold them, from the dataclasses that parsed them."""
    known = known_flags()
    return {
        one.name: _plain(getattr(group, one.name))
        for group in arguments
        for one in fields(group)
        if one.name in known
    }


def changed_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Return those of the flags of `recorded_flags` that are not at their defaults."""
    groups = (*GROUPS, TrainingArguments)  # ours first: some of transformers' have our defaults
    defaults: dict[str, Any] = {}
    for one in (one for group in groups for one in fields(group)):
        made = one.default_factory is not MISSING
        defaults.setdefault(one.name, _plain(one.default_factory() if made else one.default))
    return {name: value for name, value in flags.items() if value != defaults[name]}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


@dataclass(frozen=True)
class Change:
    """A flag whose value is another than in the run that wrote the checkpoint."""

    name: str
    before: Any
    now: Any

    @property
    def kind(self) -> OnResume:
        """What becomes of it."""
        return ON_RESUME[self.name]

    def __str__(self) -> str:
        return f"--{self.name} was {self.before}, is {self.now}"


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """List the flags that both runs know and that differ, by name."""
    both = sorted(before.keys() & now.keys() & ON_RESUME.keys())
    return [Change(name, before[name], now[name]) for name in both if before[name] != now[name]]


def judge(checkpoint: Path, found: Iterable[Change]) -> None:
    """Refuse what cannot change, and log all else that did.

    Raises:
        ResumeError: names the flags and the mend.
    """
    found = list(found)
    refused = [str(change) for change in found if change.kind is OnResume.REFUSED]
    follows = [c for c in found if c.name == "lr_scheduler_type" and c.before != c.now]
    if follows and {follows[0].before, follows[0].now} & set(_FOLLOWS_EVALUATION):
        refused.append(str(follows[0]))
    if refused:
        raise ResumeError(f"{checkpoint} cannot be gone on from: {', '.join(refused)}. {MEND}")
    for change in found:
        # For information: processes besides the first say warnings alone.
        logger.info("changed since %s: %s; it %s", checkpoint, change, change.kind.value)


# --------------------------------------------------------------------------- learning rate


@dataclass(frozen=True)
class Schedule:
    """Which place of the learning rate's schedule each step of a run has.

    A run of another length than planned stretches what is left of its schedule over the steps that
    are left, so that the rate goes on from where it was instead of jumping.

    Attributes:
        steps: of the schedule itself.
        end: steps of the run.
        start: step of the run from which on the schedule is stretched.
        place: in the schedule, at that step.
    """

    steps: int
    end: int
    start: int = 0
    place: float = 0

    def place_of(self, step: int) -> float:
        """Return the place in the schedule of a step of the run."""
        if self.end - self.start == self.steps - self.place:
            return step - self.start + self.place  # exactly, where nothing is stretched
        left = (self.steps - self.place) / max(self.end - self.start, 1)
        return self.place + (step - self.start) * left

    def to(self, end: int, step: int) -> Schedule:
        """Return the schedule of a run that is at a step and shall end at another than planned."""
        return self if end == self.end else Schedule(self.steps, end, step, self.place_of(step))

    def apply(self, scheduler: LambdaLR) -> None:
        """Let a new scheduler follow this schedule, in place."""
        if self.place_of(1) == 1 and self.place_of(self.end) == self.end:
            return
        scheduler.lr_lambdas = [
            lambda step, rate=rate: rate(self.place_of(step)) for rate in scheduler.lr_lambdas
        ]


def resumed_schedule(before: Schedule, end: int, step: int, found: Iterable[Change]) -> Schedule:
    """Return the schedule of a run that goes on.

    Args:
        before: of the run that wrote the checkpoint.
        end: steps of this run.
        step: of the checkpoint.
        found: changed flags; with another kind of schedule or warm-up, steps have the places that
            they would have had from the beginning.
    """
    if any(change.name in _SHAPE for change in found):
        return Schedule(end, end)
    return before.to(end, step)


def check_rates(training: TrainingArguments, schedule: Schedule, first: int, rows: int) -> None:
    """Check that some step to come has a learning rate above 0.

    Args:
        training: flags.
        schedule: of the run.
        first: step that comes next, from 0.
        rows: of the whole run.

    Raises:
        ArgumentError: none has, so that nothing would be learned; or there is no such schedule.
    """
    if first >= schedule.end:
        return  # the run is finished: only its result is to be written
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=training.learning_rate)
    warmup = training.get_warmup_steps(schedule.steps)
    name = training.lr_scheduler_type.value
    try:
        scheduler = get_scheduler(
            name, optimizer, warmup, schedule.steps, training.lr_scheduler_kwargs
        )
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"--lr_scheduler_type {name}: {error}") from error
    if not isinstance(scheduler, LambdaLR):
        return
    rate = scheduler.lr_lambdas[0]
    try:
        rate(schedule.place_of(schedule.end))
    except ZeroDivisionError:
        raise ArgumentError(
            f"--lr_scheduler_type {name} needs steps behind its warm-up, and --warmup_steps "
            f"{training.warmup_steps:g} is all of the {schedule.steps}: lower it"
        ) from None
    if any(rate(schedule.place_of(step)) > 0 for step in range(first, schedule.end)):
        return
    if first:
        raise ArgumentError(
            f"the learning rate has come to 0 at step {first}, where the schedule ends, so that "
            f"the {schedule.end - first} steps to come would learn nothing: start a new run with "
            "another --output_dir and the trained model as --model_name_or_path"
        )
    raise ArgumentError(
        f"nothing would be learned: the run has {schedule.end} step(s) for its {rows} rows, and "
        f"--lr_scheduler_type {name} with {warmup} of them for --warmup_steps "
        f"{training.warmup_steps:g} gives each the learning rate 0. Lower BATCH_SIZE "
        "(--per_device_train_batch_size x --gradient_accumulation_steps x processes), raise "
        "--num_train_epochs, or give --warmup_steps 0 --lr_scheduler_type constant"
    )


# ----------------------------------------------------------------------- files of a checkpoint


def check_files(checkpoint: Path, step: int, older: Path | None) -> None:
    """Check that a checkpoint has all that a run goes on with, and that it can be read.

    Args:
        checkpoint: the folder.
        step: that it is of.
        older: a complete checkpoint before it, if there is one.

    Raises:
        ResumeError: names the file, and the mend.
    """
    back = f"delete the folder to go on from {older.name}" if older else "start afresh"
    mend = f"Copy it back from where the run wrote it, or {back}"
    try:
        state, _ = read_json(checkpoint / "trainer_state.json", "state of the trainer")
    except FileError as error:
        raise ResumeError(f"{error} {mend}") from error
    if not isinstance(state, dict) or state.get("global_step") != step:
        raise ResumeError(f"{checkpoint / 'trainer_state.json'} is not of step {step}. {mend}")
    is_deepspeed = any(checkpoint.glob("global_step*[0-9]"))
    needed = ["scheduler.pt"] if is_deepspeed else ["optimizer.pt", "scheduler.pt"]
    for name in needed:
        if not (checkpoint / name).is_file() and not any(checkpoint.glob("pytorch_model_fsdp*")):
            raise ResumeError(
                f"{checkpoint / name} is missing (--save_only_model writes none), so that the run "
                f"would begin its optimizer and schedule again. {mend}, with --model_name_or_path "
                f"{checkpoint} to keep its weights"
            )
    for file in sorted([*checkpoint.rglob("*.pt"), *checkpoint.rglob("*.pth")]):
        if not zipfile.is_zipfile(file):  # as torch.save writes them; the end is what says so
            raise ResumeError(f"{file} is damaged: it ends too early. {mend}")
    if not any(checkpoint.glob("rng_state*.pth")):
        raise ResumeError(f"{checkpoint}: rng_state.pth is missing. {mend}")
