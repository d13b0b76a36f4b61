"""Flags of the published scripts, and flags of transformers that would do nothing here: one table.

The published ones are those of OpenGVLab/InternVL (`internvl_chat_finetune.py`,
`internvl_chat_pretrain.py` and the scripts that call them) and of josephzpng/DisTime, and those of
transformers 4.37 on which they ran that transformers 5 has dropped. Each is taken over under its
name here, left out with a line in the log, or refused with what replaces it: none does nothing
unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from distime.train.flags import ArgumentError


@dataclass(frozen=True)
class FlagRule:
    """What becomes of a flag that is not ours.

    Attributes:
        to: name of the flag here that it becomes; None drops it.
        same: values, as words in lower case, that say what holds here anyway; None for any value.
        why: what holds here, or what replaces the flag: said when it is dropped or refused.
        convert: makes the value for the flag `to`.
    """

    to: str | None = None
    same: Sequence[str] | None = None
    why: str = ""
    convert: Callable[[str], str] = str


def _share_of_steps(value: str) -> str:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ArgumentError(f"--warmup_ratio {value}: give a number from 0 to below 1")
    return value


_OFF, _ON = ("false", "0", "no", "none"), ("true", "1", "yes", "")
_CHECKPOINT = "the start checkpoint decides it: its processor_config.json or config.json"
_PACKING = "--packing plans all rows before the run: nothing is buffered, dropped or padded"
_SCORES = "answers are scored one by one as benchmarks score them; see --eval_path in TRAINING.md"
_HUB = "nothing is uploaded in training; afterwards: hf upload NAME OUTPUT_DIR"
_ORDER = "the run's rows are planned before it starts (seed: --seed, lengths: --group_by_length)"

PUBLISHED = {
    # names that have changed
    "grad_checkpoint": FlagRule("gradient_checkpointing"),
    "evaluation_strategy": FlagRule("eval_strategy"),
    "warmup_ratio": FlagRule("warmup_steps", convert=_share_of_steps),
    "use_liger": FlagRule("use_liger_kernel"),
    "use_packed_ds": FlagRule("packing"),
    "no_cuda": FlagRule("use_cpu"),
    "per_gpu_train_batch_size": FlagRule("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": FlagRule("per_device_eval_batch_size"),
    # what the start checkpoint says
    "force_image_size": FlagRule(
        same=("448",), why=f"{_CHECKPOINT} (image_size); --image_size trains with another"
    ),
    "down_sample_ratio": FlagRule(same=("0.5",), why=_CHECKPOINT + " (downsample_ratio)"),
    "ps_version": FlagRule(
        same=("v2",), why="pixels are shuffled as in v2, all that InternVL2.5 uses"
    ),
    "vision_select_layer": FlagRule(same=("-1",), why="the tower's last layer is used"),
    "normalize_type": FlagRule(same=("imagenet",), why=_CHECKPOINT + " (image_mean, image_std)"),
    "min_dynamic_patch": FlagRule(same=("1",), why="--dynamic_image_size cuts into 1 tile or more"),
    "pad2square": FlagRule(same=_OFF, why="images are resized without padding"),
    "use_fast_tokenizer": FlagRule(why="both kinds of tokenizer give the same ids"),
    "use_pooling": FlagRule(same=_OFF, why="frames keep all their tokens"),
    "drop_path_rate": FlagRule(same=("0", "0.0"), why="the vision tower has no stochastic depth"),
    "vision_path": FlagRule(same=(), why="give a whole checkpoint with --model_name_or_path"),
    "llm_path": FlagRule(same=(), why="give a whole checkpoint with --model_name_or_path"),
    "mlp_path": FlagRule(same=(), why="give a whole checkpoint with --model_name_or_path"),
    # what is trained
    "use_backbone_lora": FlagRule(
        same=("0",), why="LoRA is on the language model alone (--use_llm_lora)"
    ),
    "unfreeze_vit_layers": FlagRule(
        same=("0",), why="the vision tower is trained whole (--freeze_backbone False) or not at all"
    ),
    "unfreeze_lm_head": FlagRule(
        same=_ON, why="--train_embeddings full trains the head; new_rows and none do not"
    ),
    "use_custom_trainer": FlagRule(same=_OFF, why="there is one trainer"),
    # data and order
    "overwrite_output_dir": FlagRule(
        why="checkpoints in --output_dir are never overwritten: --resume auto goes on from them, "
        "without it a run refuses to start over them"
    ),
    "use_data_resampling": FlagRule(
        same=_OFF, why="give each source its repeat_time in the meta file"
    ),
    "max_packed_tokens": FlagRule(why="--packing fills rows of --max_seq_length tokens"),
    "num_images_expected": FlagRule(why=_PACKING),
    "max_buffer_size": FlagRule(why=_PACKING),
    "strict_mode": FlagRule(why=_PACKING),
    "replacement": FlagRule(same=_OFF, why=_PACKING),
    "allow_overflow": FlagRule(same=_OFF, why=_PACKING),
    "log_freq": FlagRule(why="the log has padding_share every --logging_steps"),
    "loss_reduction": FlagRule(
        same=("sample",), why="the loss of a step is the mean over its samples, however packed"
    ),
    "loss_reduction_all_gather": FlagRule(same=_ON, why="it is, over the samples of all processes"),
    # transformers 4.37
    "logging_dir": FlagRule(same=(), why="set TENSORBOARD_LOGGING_DIR in the environment"),
    "save_safetensors": FlagRule(same=_ON, why="weights are always written as safetensors"),
    "adafactor": FlagRule(same=_OFF, why="give --optim adafactor"),
    "use_ipex": FlagRule(same=_OFF, why="IPEX is not used"),
    "use_mps_device": FlagRule(why="a device is found by itself; --use_cpu True takes none"),
    "jit_mode_eval": FlagRule(same=_OFF, why="the model is not traced"),
    "fp16_backend": FlagRule(same=("auto",), why="PyTorch's own mixed precision is used"),
    "half_precision_backend": FlagRule(same=("auto",), why="PyTorch's own mixed precision is used"),
    "fp16_opt_level": FlagRule(same=("o1",), why="PyTorch's own mixed precision is used"),
    "fsdp_min_num_params": FlagRule(same=("0",), why="give it in --fsdp_config"),
    "fsdp_transformer_layer_cls_to_wrap": FlagRule(same=(), why="give it in --fsdp_config"),
    "torchdynamo": FlagRule(same=(), why="give --torch_compile True"),
    "tpu_num_cores": FlagRule(same=(), why="TPUs are not supported"),
    "past_index": FlagRule(same=("-1",), why="no state is kept between batches"),
    "include_tokens_per_second": FlagRule(why="the log always has tokens_per_second"),
    "include_inputs_for_metrics": FlagRule(same=_OFF, why=_SCORES),
    "use_legacy_prediction_loop": FlagRule(same=_OFF, why=_SCORES),
    "mp_parameters": FlagRule(same=("",), why="SageMaker's model parallelism is not supported"),
    "ray_scope": FlagRule(same=("last",), why="there is no search over settings"),
    "dispatch_batches": FlagRule(same=_OFF, why=_ORDER),
    "split_batches": FlagRule(same=_OFF, why=_ORDER),
}
"""Published flags by name; those that mean the same here under the same name are not in it."""

WITHOUT_EFFECT = {
    "label_smoothing_factor": FlagRule(same=("0", "0.0"), why="no label is smoothed"),
    "average_tokens_across_devices": FlagRule(
        same=_ON, why="losses are always averaged over the samples of all processes"
    ),
    "use_cache": FlagRule(same=_OFF, why="training keeps no past"),
    "auto_find_batch_size": FlagRule(same=_OFF, why="set --per_device_train_batch_size: " + _ORDER),
    "logging_nan_inf_filter": FlagRule(same=_ON, why="a loss that is not finite stops the run"),
    "bf16_full_eval": FlagRule(same=_OFF, why="evaluation is in the precision of training"),
    "fp16_full_eval": FlagRule(same=_OFF, why="evaluation is in the precision of training"),
    "prediction_loss_only": FlagRule(same=_OFF, why=_SCORES),
    "eval_do_concat_batches": FlagRule(same=_ON, why=_SCORES),
    "eval_use_gather_object": FlagRule(same=_OFF, why=_SCORES),
    "eval_accumulation_steps": FlagRule(same=_OFF, why=_SCORES),
    "include_for_metrics": FlagRule(same=(), why=_SCORES),
    "batch_eval_metrics": FlagRule(same=_OFF, why=_SCORES),
    "label_names": FlagRule(same=(), why=_SCORES),
    "ignore_data_skip": FlagRule(
        same=_OFF, why="it would repeat samples; --resume auto goes on behind the last one"
    ),
    "restore_callback_states_from_checkpoint": FlagRule(same=_OFF, why="no callback keeps a state"),
    "enable_jit_checkpoint": FlagRule(
        same=_OFF, why="set --save_steps: a kill loses no more than that"
    ),
    "data_seed": FlagRule(same=("none",), why="give --seed (order) or --sampling_seed (frames)"),
    "accelerator_config": FlagRule(same=(), why=_ORDER),
    "dataloader_drop_last": FlagRule(same=_OFF, why="rows that fill no step are left out anyway"),
    "dataloader_in_order": FlagRule(same=_ON, why=_ORDER),
    "dataloader_persistent_workers": FlagRule(
        same=_OFF, why="the run is one pass over its plan, so workers live as long as it does"
    ),
    "train_sampling_strategy": FlagRule(same=("random",), why=_ORDER),
    "length_column_name": FlagRule(
        same=("length",), why="lengths are counted: --group_by_length True"
    ),
    "push_to_hub": FlagRule(same=_OFF, why=_HUB),
    "hub_token": FlagRule(same=(), why=_HUB),
    "hub_private_repo": FlagRule(same=_OFF, why=_HUB),
    "hub_model_id": FlagRule(same=(), why=_HUB),
    "hub_strategy": FlagRule(same=("every_save",), why=_HUB),
    "hub_always_push": FlagRule(same=_OFF, why=_HUB),
    "hub_revision": FlagRule(same=(), why=_HUB),
}
"""Flags of `transformers.TrainingArguments` that our trainer has no use for."""

NARROWED = {
    "remove_unused_columns": FlagRule(same=_OFF, why="the collator's columns are all used"),
    "do_train": FlagRule(same=_ON, why="this command trains; `distime evaluate` evaluates"),
    "do_predict": FlagRule(same=_OFF, why="`distime evaluate` predicts and scores"),
}
"""Flags of which one value alone makes sense here."""

TABLE = PUBLISHED | WITHOUT_EFFECT | NARROWED


def translate(
    flags: Iterable[tuple[str, list[str]]], notes: list[str]
) -> Iterator[tuple[str, list[str]]]:
    """Put flags of the table into ours, and hand on all others.

    Args:
        flags: names and the words behind them.
        notes: receives a line for every flag that is renamed or left out.

    Raises:
        ArgumentError: a flag asks for what is not done here; says what replaces it.
    """
    for name, values in flags:
        rule = TABLE.get(name)
        if rule is None:
            yield name, values
            continue
        said = " ".join([f"--{name}", *values])
        if rule.to is not None:
            values = [rule.convert(value) for value in values]
            notes.append(f"{said} is taken as {' '.join([f'--{rule.to}', *values])}")
            yield rule.to, values
        elif rule.same is None:
            notes.append(f"{said} is left out: {rule.why}")
        elif not _is_same(" ".join(values).lower(), rule.same):
            raise ArgumentError(f"{said} has no effect here: {rule.why}. Leave it out")


def _is_same(value: str, allowed: Sequence[str]) -> bool:
    if value in allowed:
        return True
    try:
        return any(float(value) == float(word) for word in allowed if _is_number(word))
    except ValueError:
        return False


def _is_number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdigit()
