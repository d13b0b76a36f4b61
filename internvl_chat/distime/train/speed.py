"""Choices that serve speed and memory and leave results as they are, checked before anything loads:
the attention implementation, Liger's kernels, and which parts recompute their activations.
"""

from __future__ import annotations

import logging
from dataclasses import fields

import torch
from transformers.utils import is_flash_attn_2_available, is_liger_kernel_available

from distime.backbones import DisTimeForConditionalGeneration
from distime.model.block_attention import SDPA_BLOCKS
from distime.processing.processor import DisTimeProcessor
from distime.train import memory
from distime.train.arguments import (
    ArgumentError,
    DataArguments,
    ModelArguments,
    TrainArguments,
)

logger = logging.getLogger(__name__)

ATTENTION = ("sdpa", "flash_attention_2", "flex_attention", "eager")
PARTS = ("vision", "language")
_USABLE = 0.8
"""Of the memory of a GPU; the rest is for buffers of communication and fragments."""


def check(arguments: ModelArguments, data: DataArguments, training: TrainArguments) -> None:
    """Refuse what cannot work on this machine or together.

    Raises:
        ArgumentError: the message names the flag and the mend.
    """
    has_gpu = torch.cuda.is_available() and not training.use_cpu
    _check_attention(arguments.attn_implementation, data, training, has_gpu)
    if training.use_liger_kernel:
        if not is_liger_kernel_available():
            raise ArgumentError(
                "--use_liger_kernel: liger-kernel is not installed; pip install liger-kernel, or "
                "leave the flag out"
            )
        if not has_gpu:
            raise ArgumentError("--use_liger_kernel needs a GPU: its kernels are written in Triton")
    _parts(training)
    if data.cache_features:
        if not (arguments.freeze_backbone and arguments.freeze_mlp):
            raise ArgumentError(
                "--cache_features keeps what comes out of vision tower and projector, so both must "
                "stay as they are: add --freeze_backbone True --freeze_mlp True"
            )
        if data.cache_samples:
            raise ArgumentError(
                "--cache_features and --cache_samples both keep the media; choose one of them"
            )


def check_backbone(
    processor: DisTimeProcessor,
    arguments: ModelArguments,
    data: DataArguments,
    training: TrainArguments,
) -> None:
    """Refuse what the backbone of a model cannot do, before its weights are read.

    Raises:
        ArgumentError: names the flag and the reason.
    """
    limits = processor.backbone.model_class.limits
    config = getattr(training, "hf_deepspeed_config", None)  # without DeepSpeed it has none
    if "zero3" in limits and config is not None and config.is_zero3():
        raise ArgumentError(f"--deepspeed: {processor.backbone.name} {limits['zero3']}")
    for flag, reason in limits.items():
        if getattr(data, flag, None):
            raise ArgumentError(f"--{flag}: {processor.backbone.name} {reason}")
    several = processor.backbone.model_class.position_rows > 1
    if several and data.packing and arguments.attn_implementation == "flash_attention_2":
        raise ArgumentError(
            "--attn_implementation flash_attention_2 reads where packed samples begin from their "
            f"positions, which have several coordinates on {processor.backbone.name}: choose sdpa, "
            "or leave --packing out"
        )
    known = {field.name for field in fields(processor.settings)}
    if strange := sorted(data.processor_overrides.keys() - known):
        raise ArgumentError(
            f"{processor.backbone.name} has no setting {', '.join(strange)}: leave the flag out; "
            f"it has {', '.join(sorted(known))}"
        )


def _check_attention(
    name: str | None, data: DataArguments, training: TrainArguments, has_gpu: bool
) -> None:
    if name is None:
        return
    if name not in ATTENTION:
        raise ArgumentError(f"--attn_implementation {name}: choose {', '.join(ATTENTION)}")
    if name in ("flash_attention_2", "flex_attention") and not has_gpu:
        raise ArgumentError(
            f"--attn_implementation {name} trains on a GPU only; choose sdpa or eager on a CPU"
        )
    if name != "flash_attention_2":
        return
    if not is_flash_attn_2_available():
        raise ArgumentError(
            "--attn_implementation flash_attention_2: flash-attn is not installed; pip install "
            "flash-attn, or choose sdpa"
        )
    if data.share_video_prefix:
        raise ArgumentError(
            "--attn_implementation flash_attention_2 knows sequences that follow one another, not "
            "items that share frames; choose sdpa or flex_attention with --share_video_prefix"
        )
    if data.packing and training.per_device_train_batch_size > 1:
        raise ArgumentError(
            "--attn_implementation flash_attention_2 takes one packed row at a time; set "
            "--per_device_train_batch_size 1 (and a longer --max_seq_length), or choose sdpa"
        )


def _parts(training: TrainArguments) -> list[str]:
    """Return the parts that recompute their activations in the backward pass."""
    wanted = training.gradient_checkpointing
    # The same under its later name in transformers.
    wanted = wanted or getattr(training, "activation_checkpointing", False)
    if not training.checkpoint_parts:
        return list(PARTS) if wanted else []
    if not wanted:
        raise ArgumentError("--checkpoint_parts needs --gradient_checkpointing True")
    parts = [part.strip() for part in training.checkpoint_parts.split(",")]
    if unknown := [part for part in parts if part not in PARTS]:
        raise ArgumentError(
            f"--checkpoint_parts {training.checkpoint_parts}: {unknown[0]!r} is none of "
            f"{', '.join(PARTS)}; give one, or both with a comma"
        )
    return parts


def narrow_frozen(model: DisTimeForConditionalGeneration, exact: bool) -> None:
    """Give the weights that are not trained bfloat16, in place, as DeepSpeed does.

    Autocast would round them anyway, anew in every pass. What is trained stays float32.

    Args:
        model: in float32.
        exact: leave those in float32 that would lose something: the result is to have it.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            narrow = parameter.data.to(torch.bfloat16)
            if not exact or torch.equal(narrow.float(), parameter.data):
                parameter.data = narrow


def advise(model: DisTimeForConditionalGeneration, training: TrainArguments, tokens: int) -> None:
    """Log whether recomputing activations is needed here; with --recompute_if_needed, decide it.

    Args:
        model: with what is trained chosen.
        training: its --gradient_checkpointing is switched off where that is decided.
        tokens: most of one row.
    """
    if not torch.cuda.is_available() or training.use_cpu or not _frozen_vision(model):
        return  # what a trained vision tower keeps is not computed
    room = torch.cuda.get_device_properties(training.device).total_memory
    tokens *= training.per_device_train_batch_size
    found = memory.activations(model, tokens)
    needed, least = (memory.needed_bytes(model, b) for b in (found.kept, found.recomputed))
    recomputes, fits = bool(_parts(training)), needed <= _USABLE * room
    if recomputes and fits and training.recompute_if_needed:
        training.gradient_checkpointing = training.activation_checkpointing = False
        advice = "activations are kept (--recompute_if_needed): a step is shorter by up to a third"
    elif recomputes and fits:
        advice = "without --gradient_checkpointing a step is shorter by up to a third"
    elif recomputes:
        advice = "so they are recomputed (--gradient_checkpointing)"
    else:
        advice = "as it is" if fits else "add --gradient_checkpointing True"
    logger.info(
        "computed for %d tokens: %.1f GiB with all activations kept, %.1f with them recomputed, of "
        "%.1f GiB here: %s",
        tokens, needed / 2**30, least / 2**30, room / 2**30, advice,
    )  # fmt: skip


def _frozen_vision(model: DisTimeForConditionalGeneration) -> bool:
    vision = model.get_submodule(model.parts.vision_module)
    return not any(parameter.requires_grad for parameter in vision.parameters())


def apply(model: DisTimeForConditionalGeneration, training: TrainArguments) -> None:
    """Make a model train as the flags say, in place; to be called once, before the trainer.

    The trainer would do either for the whole model. Recomputation would then hang a gradient on the
    pixels' embeddings (transformers' way to feed reentrant recomputation), and a frozen vision
    tower would be run backward for nothing. Liger knows no `distime` and would do nothing.
    """
    text_config = model.config.get_text_config()
    if text_config._attn_implementation == "sdpa":
        text_config._attn_implementation = SDPA_BLOCKS
    modules = {"vision": model.parts.vision_module, "language": model.parts.language_model}
    given = training.activation_checkpointing_kwargs or training.gradient_checkpointing_kwargs
    options = {"use_reentrant": False} | (given or {})
    for name in _parts(training):
        part = model.get_submodule(modules[name])
        part.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    training.gradient_checkpointing = training.activation_checkpointing = False
    if training.use_liger_kernel:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        # Logits exist at supervised positions alone, so there is no loss worth fusing.
        options = {"fused_linear_cross_entropy": False, "cross_entropy": False}
        options |= training.liger_kernel_config or {}
        language_model = model.get_submodule(model.parts.language_model)
        _apply_liger_kernel_to_instance(model=language_model, **options)
        training.use_liger_kernel = False
