"""What an objective is: it says which flags it has, and makes the loss of a micro-batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from distime.data.collator import FOR_TRAINER, Collator
from distime.model.modeling import DisTimeOutput
from distime.model.token_index import IGNORE_INDEX
from distime.train import objectives
from distime.train.flags import ArgumentError, ObjectiveFlags

if TYPE_CHECKING:
    from distime.processing.processor import DisTimeProcessor
    from distime.train.arguments import DataArguments, ModelArguments, TrainArguments

Batch = dict[str, Any]
"""What the collator makes of the rows of a micro-batch."""


class Objective:
    """What a run learns from its samples; this one from their answers alone.

    Args:
        training: the flags.

    Attributes:
        flags: flags of `ObjectiveFlags` that it has, and their values where they are not given.
        own_losses: names of what it adds to the model's losses in the output of `compute`.
        losses: all of them, once it is attached; they are logged at every step.
        settings: values of its flags.
        sums: what else is logged: a sum and a count by name, the mean of a log line being over all
            of its steps and processes.

    Raises:
        ArgumentError: a flag of another objective is given.
    """

    flags: ClassVar[Mapping[str, Any]] = {}
    own_losses: ClassVar[tuple[str, ...]] = ()

    def __init__(self, training: TrainArguments):
        self.settings = dict(self.flags)
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for one in fields(ObjectiveFlags):
            value = getattr(training, one.name)
            if one.name == "objective" or value is None:
                continue
            if one.name not in self.flags:
                having = [n for n in objectives.NAMES if one.name in objectives.find(n).flags]
                raise ArgumentError(
                    f"--{one.name} does nothing with --objective {training.objective}: leave it "
                    f"out, or give --objective {' or '.join(having)}"
                )
            self.settings[one.name] = value

    def check(
        self, arguments: ModelArguments, data: DataArguments, training: TrainArguments
    ) -> None:
        """Refuse what cannot work, before anything is loaded.

        Raises:
            ArgumentError: names the flag and the mend.
        """

    def attach(self, model: torch.nn.Module, processor: DisTimeProcessor) -> None:
        """Take the model that is trained, with the weights it starts from.

        Raises:
            ArgumentError: this objective cannot train it.
        """
        of_time = (f"{name}_loss" for name in model.time_head.losses)
        self.losses: tuple[str, ...] = ("text_loss", *of_time, *self.own_losses)

    def collator(self, processor: DisTimeProcessor) -> Any:
        """Return what makes a micro-batch of rows."""
        ids = processor.token_ids
        return Collator(ids.pad, processor.positions, ids)

    def prepare(self, batches: Sequence[Batch], step: int, autocast: Any) -> list[Batch]:
        """Make the micro-batches of a step ready, before their samples are counted.

        Whatever changes the rows of a batch leaves out what says where something lies in
        them: `token_index`, `row_bounds` and `attention_blocks`.

        Args:
            batches: of this process, on its device.
            step: number of optimizer steps made before.
            autocast: gives contexts in which the model runs as in training.

        Raises:
            DisTimeError: a reward cannot be had, say; the run stops on every process.
        """
        return list(batches)

    def compute(
        self, model: torch.nn.Module, batch: Batch, divisor: Tensor | None
    ) -> tuple[Tensor, DisTimeOutput]:
        """Return the loss of a micro-batch, and the output, which has a field for each of `losses`.

        Args:
            model: possibly wrapped.
            batch: of `prepare`.
            divisor: what the sum of the samples' losses is divided by; their number where None.
        """
        outputs = self.run(model, batch, divisor)
        return outputs.loss, outputs

    @staticmethod
    def run(model: torch.nn.Module, batch: Batch, divisor: Tensor | None) -> DisTimeOutput:
        """Run the model on a micro-batch, which says itself where its special tokens lie."""
        arguments = {name: value for name, value in batch.items() if name not in FOR_TRAINER}
        if "token_index" in batch:
            told = {name: batch.get(name) for name in ("token_index", "attention_blocks")}
            arguments |= told | batch.get("row_bounds", {})
            # The collator pads on the right, where no token looks. A mask would be searched for
            # zeros, which waits for the device, and keep SDPA from its causal kernel.
            arguments.pop("attention_mask", None)
        if divisor is not None:
            arguments["loss_divisor"] = divisor
        return model(**arguments, use_cache=False)

    def note(self, **values: float | Sequence[float]) -> None:
        """Add values to what is logged as their mean."""
        for name, value in values.items():
            several = value if isinstance(value, Sequence) else [value]
            self.sums[name][0] += sum(several)
            self.sums[name][1] += len(several)


def refuse_without_distribution(arguments: ModelArguments, training: TrainArguments) -> None:
    """Refuse a time head from which no times can be drawn.

    Raises:
        ArgumentError: names the head.
    """
    if not arguments.head.has_distribution:
        raise ArgumentError(
            f"--objective {training.objective} needs distributions, which the time head "
            f"{arguments.head_name} does not have: leave --objective out, or train with "
            "--time_head distribution"
        )


def samples_of(batch: Batch) -> Tensor:
    """Number of the sample that each token `(B, T)` of a batch belongs to, -1 for shared ones."""
    if "sample_ids" in batch:
        return batch["sample_ids"]
    labels = batch["labels"]
    return torch.arange(len(labels), device=labels.device).unsqueeze(-1).expand_as(labels)


def supervised_times(batch: Batch, time_token_id: int) -> tuple[Tensor, Tensor]:
    """Intervals `(E, 2)` and samples `(E,)` of the supervised `<TIME_STAMP>` tokens of a batch.

    They are those of the model's `time_logits`, in the same order.
    """
    is_time = batch["input_ids"] == time_token_id
    supervised = is_time & (batch["labels"] != IGNORE_INDEX)
    targets = batch.get("time_targets")
    if targets is None:
        targets = torch.zeros(0, 2, device=is_time.device)
    return targets[supervised[is_time]], samples_of(batch)[supervised]
