"""Training in several processes with DeepSpeed: whole weights before and after, and checkpoints.

DeepSpeed itself is imported only when a run asks for it.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from distime.errors import DisTimeError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

logger = logging.getLogger(__name__)


class ResumeError(DisTimeError):
    """A run cannot start or go on in its folder; the message says why and what to change."""


@contextmanager
def whole_model(training: TrainingArguments) -> Iterator[None]:
    """Load a model within this context as if there were no ZeRO-3.

    Transformers would create it already sharded, and the readers of published checkpoints and LoRA
    would see empty tensors. So every process loads the whole model into CPU memory, and DeepSpeed
    shards it when training begins.
    """
    if not training.deepspeed:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(training.hf_deepspeed_config)


@torch.no_grad()
def gather_weights(model: nn.Module, is_main: bool) -> None:
    """Put the whole weights of a model that ZeRO-3 shards on the main process, to merge and save.

    Every process must call this. It ends training: on the main process the parameters become
    ordinary ones on the CPU, elsewhere they stay shards. Models that are not sharded stay as they
    are.

    Args:
        model: the bare model, not DeepSpeed's engine around it.
        is_main: this process receives the weights.
    """
    sharded = {parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")}
    if not sharded:
        return
    import deepspeed

    whole: dict[nn.Parameter, nn.Parameter] = {}  # tied weights are one parameter and stay one
    for parameter in model.parameters():  # in the same order on every process
        if parameter in sharded:
            with deepspeed.zero.GatheredParameters([parameter]):
                if is_main:
                    copy = parameter.data.to("cpu", copy=True)
                    whole[parameter] = nn.Parameter(copy, requires_grad=parameter.requires_grad)
    for module in model.modules() if is_main else ():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter in whole:
                module._parameters[name] = whole[parameter]


def leave_process_group() -> None:
    """Wait until every process has come here, and part; the last thing that a process does.

    One that exited while another still writes the result, or with the group's threads running
    (gloo then aborts, now and then), would make torchrun kill the others.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def prepare_resume(checkpoint: Path, training: TrainingArguments) -> None:
    """See that `load_checkpoint` can read a checkpoint, whatever number of processes wrote it.

    DeepSpeed's own format is one file for each process that wrote it. For another number, the main
    process converts it once to DeepSpeed's universal format, beside the original.

    Args:
        checkpoint: folder `checkpoint-N` of the trainer, on a disk that all processes see.
        training: of the run that goes on; all its processes call this.

    Raises:
        ResumeError: the checkpoint was written with another `--deepspeed`.
    """
    written = next(iter(checkpoint.glob("global_step*[0-9]")), None)
    if (written is not None) != bool(training.deepspeed):
        was, mend = ("with", "the same") if written else ("without", "no")
        raise ResumeError(
            f"{checkpoint} was written {was} DeepSpeed: give {mend} --deepspeed, or --resume none"
        )
    if written is None:
        return
    is_zero3 = not (written / "mp_rank_00_model_states.pt").is_file()
    if is_zero3 != training.hf_deepspeed_config.is_zero3():
        stage = "ZeRO-3" if is_zero3 else "ZeRO-1 or ZeRO-2"
        raise ResumeError(
            f"{checkpoint} was written with {stage}: give a --deepspeed configuration of that "
            "stage, or --resume none"
        )
    num_processes = len(list(written.glob("*_optim_states.pt")))
    if num_processes == training.world_size:
        return
    with training.main_process_first(local=False):
        # DeepSpeed writes this file when all others are there.
        if not (checkpoint / "latest_universal").is_file():
            logger.info("converting %s from %d processes", checkpoint, num_processes)
            _convert_to_universal(written)
    config = training.hf_deepspeed_config.config
    config["checkpoint"] = config.get("checkpoint", {}) | {"load_universal": True}


def _convert_to_universal(written: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    ds_to_universal.main(
        Namespace(
            input_folder=str(written),
            output_folder=f"{written}_universal",
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,  # models of transformers do not note what a universal one is
        )
    )


def save_checkpoint(engine: DeepSpeedEngine, folder: Path) -> None:
    """Write the state of training, without the frozen weights: the start checkpoint has those."""
    engine.save_checkpoint(str(folder), exclude_frozen_parameters=True)


def optimizer_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what the flags say of each parameter group: betas, weight decay, ...; not the rate."""
    no_settings = ("params", "lr", "initial_lr")
    return [
        {name: value for name, value in group.items() if name not in no_settings}
        for group in optimizer.param_groups
    ]


def load_checkpoint(engine: DeepSpeedEngine, folder: Path) -> None:
    """Read what `save_checkpoint` wrote; see `prepare_resume`.

    Raises:
        ResumeError: there is no checkpoint of DeepSpeed.
    """
    settings = optimizer_settings(engine.optimizer)
    loaded, _ = engine.load_checkpoint(str(folder), load_module_strict=False)
    if loaded is None:
        raise ResumeError(f"{folder}: DeepSpeed cannot read it; delete it or give --resume none")
    # From a universal checkpoint, ZeRO-3 gives every parameter group the settings of the first.
    for group, values in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(values)
