"""The model that a run started from, without a second copy: adapters off, the rest swapped back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from distime.train.flags import ArgumentError
from distime.train.lora import TIME_MODULES


class StartModel:
    """Remembers the start of a run in which adapters and the time modules alone are trained.

    Args:
        model: as it is loaded, before the first step; unwrapped.

    Raises:
        ArgumentError: more is trained, of which the start would be lost.
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.adapters = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
        adapted = {id(weight) for one in self.adapters for weight in _of_adapter(one)}
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        rest = {name: p for name, p in trained.items() if id(p) not in adapted}
        if strange := next((name for name in rest if not name.startswith(TIME_MODULES)), None):
            raise ArgumentError(
                "--kl_weight compares with the start model, which is this one with LoRA switched "
                f"off; but {strange} is trained in full. Give --use_llm_lora RANK --freeze_llm "
                "True --freeze_backbone True --freeze_mlp True --train_embeddings new_rows, or "
                "leave --kl_weight out"
            )
        # The time modules are a thousandth of a model.
        self.kept = [(parameter, parameter.detach().clone()) for parameter in rest.values()]

    @contextlib.contextmanager
    def restored(self) -> Iterator[torch.nn.Module]:
        """Let the model be what it was at the start, without gradient, for a `with` block."""
        now = [parameter.data for parameter, _ in self.kept]
        for adapter in self.adapters:
            adapter.enable_adapters(False)
        for parameter, start in self.kept:
            parameter.data = start
        try:
            with torch.no_grad():
                yield self.model
        finally:
            for (parameter, _), data in zip(self.kept, now, strict=True):
                parameter.data = data
            for adapter in self.adapters:
                adapter.enable_adapters(True)


def _of_adapter(layer: BaseTunerLayer) -> Iterator[torch.nn.Parameter]:
    for name in layer.adapter_layer_names:
        yield from getattr(layer, name).parameters()
