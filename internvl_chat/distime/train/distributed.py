"""Training in several processes: what DeepSpeed needs before, and whole weights after.

DeepSpeed itself is imported only when a run asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config


def prepare_deepspeed() -> None:
    """Keep DeepSpeed from compiling on a machine without an accelerator; gloo does the same work.

    To be called before processes are connected: that is when its shared-memory kernel is compiled,
    anew on every start, for minutes and with a compiler that may not be there.
    """
    if torch.accelerator.is_available():
        return
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False


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
