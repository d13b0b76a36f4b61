"""The trainer: transformers' own, with a loss that is exact for any mix of ranks and batches."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME

from distime.data.problems import kind_of
from distime.errors import DisTimeError
from distime.train import checkpoints, distributed
from distime.train.callbacks import CountEpochs, EvaluateAtTheEnd
from distime.train.checkpoints import RunRecord
from distime.train.evaluation import HeldOut
from distime.train.export import Exporter
from distime.train.objectives.base import Objective

logger = logging.getLogger(__name__)

_LOST = {
    "num_problems": "broken_samples",
    "num_clamped": "intervals_cut_to_video",
    "num_cut": "samples_cut_to_length",
    "num_lost": "intervals_lost_to_length",
    "num_warned": "samples_of_doubtful_videos",
}
"""What is not trained as the data say: its count, and that count's name in the log."""
_COUNTED = ("num_samples", *_LOST, "num_tokens", "num_padding")
_SHOWN_OF_A_KIND = 10


class TrainingError(DisTimeError):
    """Training cannot go on; the message says why and names the samples."""


class DisTimeTrainer(Trainer):
    """`transformers.Trainer` over the rows of a plan (`distime.data.plan.PlannedRows`).

    The gradient of a step is that of the mean over all samples of the step, however they are spread
    over ranks, rows and micro-batches: the model divides by their number instead of by its own.

    Args:
        exporter: writes and reads what is trained.
        record: what a checkpoint must agree on with the run that goes on from it.
        objective: what it learns from its samples, attached to the model.
        max_bad_samples: stop when more samples than this had to be replaced.
        eval_dataset: a `HeldOut`, or None.
    """

    eval_dataset: HeldOut | None

    def __init__(
        self,
        *args: Any,
        exporter: Exporter,
        record: RunRecord,
        objective: Objective,
        max_bad_samples: int = 100,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.exporter, self.record, self.objective = exporter, record, objective
        # A loss that is not finite stops the run; to look at each by itself waits for the device.
        self.args.logging_nan_inf_filter = False
        # Batches in pinned memory are copied while the device works.
        self.accelerator.dataloader_config.non_blocking = self.args.dataloader_pin_memory
        # Set by the trainer, it would be saved with the model; `compute_loss` says it instead.
        vars(self.model.config).pop("use_cache", None)
        self._is_saving = False
        self.max_bad_samples = max_bad_samples
        # The loss that the model returns is already scaled for accumulation.
        self.model_accepts_loss_kwargs = True
        self.totals: Counter[str] = Counter()
        self._since_log: Counter[str] = Counter()
        self._loss_sums: Tensor | None = None
        self._unchecked: list[tuple[Any, list[str]]] = []
        self._places_of_step: list[str] = []
        self._counts_of_step: Tensor | None = None
        self._last_log = time.perf_counter()
        self._seconds_waited = 0.0
        self._warned: Counter[str] = Counter()
        if self.train_dataset is not None:
            self.add_callback(CountEpochs(self.train_dataset, self.args.rows_per_step))
        self.add_callback(EvaluateAtTheEnd())

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # the plan is already in order

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int | Tensor]:
        """Fetch the micro-batches of a step and count its samples over all ranks.

        Raises:
            TrainingError: too many samples are broken, or a reward cannot be had.
        """
        began = time.perf_counter()
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self._seconds_waited += time.perf_counter() - began
        self._places_of_step = [place for batch in batches for place in batch["places"]]
        counts = Counter(dict.fromkeys((*_COUNTED, "num_failures"), 0))
        failure = None
        try:
            batches = self.objective.prepare(
                batches, self.state.global_step, self.compute_loss_context_manager
            )
        except DisTimeError as error:
            counts["num_failures"], failure = 1, error
        for batch in batches if failure is None else ():
            for problem in batch["problems"]:
                logger.warning("%s", problem)
            for warning in batch["warnings"]:
                self._warn(warning)
            padding = batch["num_padding"]
            counts.update(
                num_samples=batch["num_samples"],
                num_problems=len(batch["problems"]),
                num_clamped=batch["num_clamped"],
                num_cut=batch["num_cut"],
                num_lost=batch["num_lost"],
                num_warned=batch["num_warned"],
                num_tokens=batch["input_ids"].numel() - padding,
                num_padding=padding,
            )
        summed = torch.tensor([counts[name] for name in (*_COUNTED, "num_failures")])
        if self.accelerator.num_processes > 1:
            summed = self.accelerator.reduce(summed.to(device), reduction="sum")
        self._counts_of_step = summed
        if type(self.objective).prepare is not Objective.prepare:  # which may have failed
            self._read_counts(failure)
        num_samples = summed[_COUNTED.index("num_samples")]
        return batches, num_samples if summed.device.type != "cpu" else int(num_samples)

    def _read_counts(self, failure: DisTimeError | None = None) -> None:
        """Read the counts of the step over all ranks; once, since it waits for the device.

        Args:
            failure: of this rank.

        Raises:
            TrainingError: a reward cannot be had on some rank, or too many samples are broken.
        """
        if self._counts_of_step is None:
            return
        *counts, num_failures = self._counts_of_step.tolist()
        self._counts_of_step = None
        if num_failures:
            # All processes learn of it and stop together: one alone would leave the others waiting.
            messages = gather_object([] if failure is None else [str(failure)])
            raise TrainingError(f"step {self.state.global_step}: {messages[0]}") from failure
        counts = dict(zip(_COUNTED, counts, strict=True))
        self.totals.update(counts)
        self._since_log.update(counts | {"num_steps": 1})
        if self.totals["num_problems"] > self.max_bad_samples:
            raise TrainingError(
                f"{self.totals['num_problems']} broken samples, more than --max_bad_samples "
                f"{self.max_bad_samples}; each is named above. Mend them (`distime check` lists "
                "all) or raise the limit"
            )

    def _warn(self, warning: str) -> None:
        kind = kind_of(warning)
        self._warned[kind] += 1
        if self._warned[kind] <= _SHOWN_OF_A_KIND:
            logger.warning("%s", warning)
        if self._warned[kind] == _SHOWN_OF_A_KIND:
            logger.warning("from here on, more of this kind are counted in the log alone")

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer without the parameter groups that would be empty.

        LoRA alone has no parameters that do not decay, and DeepSpeed cannot flatten none.
        """
        optimizer = super().create_optimizer(model)
        optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the schedule of the run, stretched where a resumed run has another length."""
        is_new = self.lr_scheduler is None
        scheduler = super().create_scheduler(self.record.schedule.steps, optimizer)
        if is_new and isinstance(scheduler, LambdaLR):
            self.record.schedule.apply(scheduler)
        return scheduler

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        counts = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # of the flags now, not of the checkpoint
        return counts

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the state of both; what the flags say of them is that of this run."""
        settings = distributed.optimizer_settings(self.optimizer)
        super()._load_optimizer_and_scheduler(checkpoint)
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)
        scheduler = self.lr_scheduler
        if not isinstance(scheduler, LambdaLR):
            return
        before, peak = scheduler.get_last_lr()[0], self.args.learning_rate
        scheduler.base_lrs = [peak] * len(scheduler.base_lrs)
        scheduler._last_lr = [peak * rate(scheduler.last_epoch) for rate in scheduler.lr_lambdas]
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, scheduler._last_lr, strict=True):
            group.update(lr=rate, initial_lr=peak)
        if scheduler._last_lr[0] != before:
            logger.info(
                "the learning rate goes on at %g; without a change it would be %g",
                scheduler._last_lr[0],
                before,
            )

    def _finalize_training(self, *args: Any) -> Any:
        # Transformers would delete the newest checkpoint here where it is not the best one.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args)
        finally:
            self.args.save_total_limit = limit

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[torch.nn.Module, Any]:
        if resume_from_checkpoint is None or not self.is_deepspeed_enabled:
            return super()._prepare_for_training(
                max_steps, train_dataloader, resume_from_checkpoint
            )
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        distributed.load_checkpoint(self.model_wrapped, Path(resume_from_checkpoint))
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_deepspeed_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        distributed.save_checkpoint(self.model_wrapped, Path(output_dir))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared = super()._prepare_inputs(inputs)
        for name in ("frame_times", "time_targets"):
            if name in inputs:
                # With DeepSpeed, transformers casts all inputs to half precision: bfloat16 would
                # round times to 1/256 of the video.
                prepared[name] = inputs[name].to(prepared["input_ids"].device)
        return prepared

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Run the model on a micro-batch.

        Raises:
            TrainingError: the loss is not finite; names the samples.
        """
        places = inputs["places"]
        # Ranks average their gradients, so each divides by its share of the samples.
        divisor = num_items_in_batch
        if divisor is not None:
            divisor = divisor / self.accelerator.num_processes
        loss, outputs = self.objective.compute(model, inputs, divisor)
        names = self.objective.losses
        parts = torch.stack([getattr(outputs, name).detach() for name in names])
        self._unchecked.append((parts, places))
        if self.accelerator.sync_gradients:
            self._check_losses()  # before the last backward pass of the step, so nothing is updated
        self._loss_sums = parts if self._loss_sums is None else self._loss_sums + parts
        return (loss, outputs) if return_outputs else loss

    def _check_losses(self) -> None:
        """Stop every process if the loss of any micro-batch of the step is not finite."""
        names = self.objective.losses
        parts = torch.stack([parts for parts, _ in self._unchecked])
        is_bad = ~parts.isfinite().all(-1)
        num_bad = self.accelerator.reduce(is_bad.sum(), reduction="sum")
        if num_bad:
            # All processes learn of it and stop together: one alone would leave the others waiting.
            messages = [
                ", ".join(
                    f"{name} {value:g}" for name, value in zip(names, row.tolist(), strict=True)
                )
                + f" for the samples {', '.join(places)}"
                for row, bad, (_, places) in zip(parts, is_bad, self._unchecked, strict=True)
                if bad
            ]
            raise TrainingError(
                f"step {self.state.global_step}: the loss is not finite: "
                f"{'; '.join(gather_object(messages))}. Look at them, or lower --learning_rate"
            )
        self._unchecked = []
        self._read_counts()  # the device has just been waited for

    def _get_grad_norm(
        self, model: torch.nn.Module, grad_norm: Tensor | float | None = None
    ) -> Tensor | float | None:
        """Also stop if a finite loss has a gradient that is not, which would ruin the weights.

        With DeepSpeed the update has already been made then, but no checkpoint of it is. In float16
        such steps are part of finding the loss's scale, and are left out.
        """
        norm = super()._get_grad_norm(model, grad_norm)  # the same on every process
        if norm is not None and not math.isfinite(norm) and not self.args.fp16:
            raise TrainingError(
                f"step {self.state.global_step}: the gradient is not finite, though the loss is, "
                f"for the samples {', '.join(gather_object(self._places_of_step))}. Look at them, "
                "or lower --learning_rate"
            )
        return norm

    def evaluate(
        self,
        eval_dataset: HeldOut | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Answer and score the held-out questions; see `distime.train.evaluation`.

        Training goes on as if nothing had happened: greedy answers draw no random number.

        Args:
            eval_dataset: other questions than those given at the start.
            ignore_keys: not used.
            metric_key_prefix: stands before every name.

        Returns:
            `eval_miou`, `eval_r1_0.3`, ... in percent.
        """
        began = time.perf_counter()
        with self.compute_loss_context_manager():  # frozen weights may be half beside float32
            scores = (eval_dataset or self.eval_dataset).score(
                self.model,
                rank=self.args.process_index,
                world_size=self.args.world_size,
                show_progress=self.is_world_process_zero() and not self.args.disable_tqdm,
            )
        seconds = time.perf_counter() - began
        scores["runtime"] = seconds
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(metrics)
        self._last_log += seconds  # no part of the throughput of training
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the losses, what the objective notes, throughput and padding to what is logged."""
        steps = self._since_log["num_steps"]  # a run that was resumed did not make them all
        if "loss" in logs and steps:
            sums = self.accelerator.reduce(self._loss_sums, reduction="mean").tolist()
            names = self.objective.losses
            logs |= {name: total / steps for name, total in zip(names, sums, strict=True)}
            logs |= self._noted()
            seconds, counts = time.perf_counter() - self._last_log, self._since_log
            logs["samples_per_second"] = counts["num_samples"] / seconds
            logs["tokens_per_second"] = counts["num_tokens"] / seconds
            processed = counts["num_tokens"] + counts["num_padding"]
            logs["padding_share"] = counts["num_padding"] / max(processed, 1)
            logs["data_wait_share"] = min(1.0, self._seconds_waited / seconds)
            logs["memory_gib"] = peak_memory_gib()
            logs |= {name: counts[count] for count, name in _LOST.items() if counts[count]}
            self._last_log = time.perf_counter()
            self._loss_sums, self._since_log, self._seconds_waited = None, Counter(), 0.0
        super().log(logs, *args, **kwargs)

    def _noted(self) -> dict[str, float]:
        """Means, over all processes, of what the objective has noted since the last line."""
        names = sorted(self.objective.sums)
        if not names:
            return {}
        sums = torch.tensor([self.objective.sums[n] for n in names], device=self.args.device)
        self.objective.sums.clear()
        totals = self.accelerator.reduce(sums, reduction="sum").tolist()
        return {n: total / count for n, (total, count) in zip(names, totals, strict=True) if count}

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / checkpoints.PARTIAL) if self._is_saving else folder

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint that appears only when every process has written its part."""
        self._is_saving = True
        super()._save_checkpoint(model, trial)
        self._is_saving = False
        folder, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        partial = folder / checkpoints.PARTIAL / name
        if self.state.best_model_checkpoint == str(partial):
            self.state.best_model_checkpoint = str(folder / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(partial / "trainer_state.json"))
            self.record.write(partial, self.state.global_step)
            checkpoints.publish(folder, name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            checkpoints.rotate(folder, self.args.save_total_limit, best)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Without gathered weights DeepSpeed hands over none, and saves its shards itself.
        if self.args.should_save and state_dict != {}:
            self.exporter.write_trained(Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.exporter.load_trained(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint)
        if self.is_deepspeed_enabled:
            distributed.load_checkpoint(self.model_wrapped, best)
        elif self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self.exporter.load_trained(best)

    def outcome(self) -> dict[str, Any]:
        """What came of the run: steps, passes, counts since it was started, and the last losses."""
        history = self.state.log_history
        last = next((line for line in reversed(history) if "loss" in line), {})
        losses = ("loss", *self.objective.losses)
        scores = next((line for line in reversed(history) if "eval_miou" in line), {})
        return {
            "steps": self.state.global_step,
            "epochs": self.state.epoch,
            "samples": {name.removeprefix("num_"): self.totals[name] for name in _COUNTED},
            "losses": {name: last[name] for name in losses if name in last},
            "evaluation": {
                name: value for name, value in scores.items() if name.startswith("eval_")
            },
        }

    def summary(self) -> str:
        """One line on what was trained on and what was wrong with it."""
        totals = self.totals
        return (
            f"{totals['num_samples']} samples, {totals['num_problems']} broken and replaced or "
            f"left out, {totals['num_cut']} cut to --max_seq_length (and {totals['num_lost']} "
            f"intervals with them), {totals['num_clamped']} intervals cut to the end of their "
            f"video, {totals['num_warned']} of videos with something wrong"
        )


def peak_memory_gib() -> float:
    """Most memory this process has held so far: of its GPU where it has one, else of the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere
