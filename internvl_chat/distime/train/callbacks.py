"""What happens at the steps where an epoch, or the run, ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from distime.data.plan import PlannedRows


class CountEpochs(TrainerCallback):
    """Say in epochs of the data how far a run is, and do what is to be done once an epoch.

    To the trainer the run is one epoch of a plan that holds all of them.
    """

    def __init__(self, rows: PlannedRows, rows_per_step: int):
        taken = np.cumsum([len(keys) for keys in rows.plan])
        seen = taken[rows_per_step - 1 :: rows_per_step] / rows.repeats
        self.passes = seen / len(rows.data)
        """Passes over the data after each step."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Set the epoch, and what is due where a pass over the data has ended."""
        before, now = (
            float(self.passes[step - 1]) if step else 0.0
            for step in (state.global_step - 1, state.global_step)
        )
        state.epoch = now
        if int(now) > int(before) and state.global_step < state.max_steps:
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH


class EvaluateAtTheEnd(TrainerCallback):
    """Evaluation every so many steps also comes after the last one."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for the last evaluation."""
        if args.eval_strategy == IntervalStrategy.STEPS and state.global_step >= state.max_steps:
            control.should_evaluate = True
