"""Learning from the rewards of the model's own sampled answers, each group among itself (GRPO).

Of every question `num_generations` answers are drawn, words and times; what an answer earns above
the mean of its group is its advantage, and makes all its tokens likelier. A time is part of the
action of its `<TIME_STAMP>`: the probability of the token times those of its two bins. Groups in
which all answers earn the same teach nothing and are left out. There is no thinking: TimeLens found
answers without it to be learned better.

Samples are answers here, and the loss of a batch is the mean of theirs, as everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distime.data.collator import bookkeeping
from distime.data.dataset import SampleGroup
from distime.engine import Decoding, Engine
from distime.model.losses import mean_per_sample
from distime.model.modeling import DisTimeOutput
from distime.model.token_index import IGNORE_INDEX
from distime.processing.prompt import Encoded
from distime.train.chosen_rewards import Scene, read_rewards
from distime.train.flags import ArgumentError
from distime.train.objectives.base import (
    Batch,
    Objective,
    refuse_without_distribution,
    samples_of,
    supervised_times,
)
from distime.train.policy import clipped_loss, group_advantages, k3
from distime.train.rollouts import Asked, Drawn, draw, split
from distime.train.start_model import StartModel

if TYPE_CHECKING:
    from distime.processing.processor import DisTimeProcessor
    from distime.train.arguments import DataArguments, ModelArguments, TrainArguments

logger = logging.getLogger(__name__)

MAX_ROWS = 256
"""Most answers that are drawn at once, where `Engine.max_batch_tokens` lets them."""
_TOLD = {
    "problems": [],
    "warnings": [],
    **dict.fromkeys(("num_clamped", "num_cut", "num_lost", "num_warned"), 0),
}
"""What is told of samples that were counted when their answers were drawn."""
_SAME = 1e-9
"""Rewards that differ by less are equal: they are sums in another order."""


@dataclass
class _Judged:
    """What is known of the answers of a batch.

    Attributes:
        advantages: `(S,)`.
        weights: `(S,)`, 1, or 0 for an answer that is there only so that the batch is not empty.
        old: log-probability of each token when it was drawn; None before the first pass.
    """

    advantages: Tensor
    weights: Tensor
    old: Tensor | None = None


class GRPO(Objective):
    """Clipped policy gradient with group-relative advantages."""

    flags = {
        "rewards": ("tiou",),
        "num_generations": 8,
        "max_completion_length": 128,
        "temperature": 1.0,
        "num_iterations": 1,
        "clip_epsilon": 0.2,
        "kl_weight": 0.0,
        "scale_rewards": False,
    }
    losses = ("policy_loss", "kl")

    def __init__(self, training: TrainArguments):
        super().__init__(training)
        self.rewards = read_rewards(self.settings["rewards"])
        self.seed = training.seed
        self.kept: list[Batch] | None = None
        self.start: StartModel | None = None

    # ------------------------------------------------------------------ at the start

    def check(
        self, arguments: ModelArguments, data: DataArguments, training: TrainArguments
    ) -> None:
        """Refuse what cannot be sampled from or would do nothing; see `Objective.check`."""
        refuse_without_distribution(arguments, training)
        for name in ("text_loss_weight", "distribution_loss_weight", "iou_loss_weight"):
            if getattr(arguments, name) is not None:
                raise ArgumentError(f"--{name} does nothing with --objective grpo: leave it out")
        if arguments.freeze_time_head:
            raise ArgumentError(
                "--objective grpo learns when as much as what, and --freeze_time_head True leaves "
                "the former as it is: leave one of them out"
            )
        config = getattr(training, "hf_deepspeed_config", None)
        if (config is not None and config.is_zero3()) or training.fsdp:
            raise ArgumentError(
                "--objective grpo samples answers, for which each process needs the whole model: "
                "give --deepspeed internvl_chat/zero_stage2_config.json, or neither --deepspeed "
                "nor --fsdp"
            )
        if arguments.attn_implementation not in (None, "sdpa", "eager"):
            raise ArgumentError(
                f"--attn_implementation {arguments.attn_implementation} cannot decode answers of "
                "different lengths together: choose sdpa for --objective grpo"
            )
        repeats, strategy = self.settings["num_iterations"], training.save_strategy.value
        is_whole = strategy == "no" or (strategy == "steps" and training.save_steps % repeats == 0)
        if repeats > 1 and not is_whole:
            raise ArgumentError(
                f"--num_iterations {repeats} takes that many steps on the same answers, and a run "
                "cannot go on from their midst: give --save_strategy steps and a multiple of "
                f"{repeats} as --save_steps, or --save_strategy no"
            )

    def attach(self, model: torch.nn.Module, processor: DisTimeProcessor) -> None:
        """Take model and processor; see `Objective.attach`."""
        if self.settings["kl_weight"]:
            self.start = StartModel(model)
        mode = model.training
        self.engine = Engine(model, processor, max_rows=MAX_ROWS)
        model.train(mode)
        ids = processor.token_ids
        self.time_token_id = model.config.time_token_id
        # Drawn, they would stand for pictures and frames that are not there.
        self.never = [*ids.placeholders, ids.frame_time_ref]
        self.end_id = ids.im_end
        self.decoding = Decoding(
            max_new_tokens=self.settings["max_completion_length"],
            min_new_tokens=0,
            do_sample=True,
            temperature=self.settings["temperature"],
            top_k=0,
            never_ids=tuple(self.never),
            sample_times=True,
        )
        self.lay = super().collator(processor)

    def collator(self, processor: DisTimeProcessor) -> Callable[[Sequence], Batch]:
        """Return what keeps rows as they are: they are laid side by side with their answers."""
        return keep_rows

    # ------------------------------------------------------------------ answers and rewards

    def prepare(self, batches: Sequence[Batch], step: int, autocast: Callable) -> list[Batch]:
        """Draw answers, reward them, and lay those that teach something behind their videos."""
        phase = step % self.settings["num_iterations"]
        if phase:
            if self.kept is None:
                raise ArgumentError(
                    f"step {step} would be on answers that an earlier step drew, since "
                    f"--num_iterations is {self.settings['num_iterations']}: go on from an earlier "
                    "checkpoint"
                )
            return [batch | _TOLD for batch in self.kept]
        groups = [group for batch in batches for row in batch["rows"] for group in row]
        taken = [(group, *split(self.engine.processor, group)) for group in groups]
        model = self.engine.model
        mode = model.training
        model.eval()
        try:
            with autocast():
                drawn = draw(
                    self.engine, taken, self.decoding, self.settings["num_generations"],
                    f"{self.seed} {step}",
                )  # fmt: skip
        finally:
            model.train(mode)
        judged = iter([self._judge(*one, d) for one, d in zip(taken, drawn, strict=True)])
        self.kept = [self._lay(batch, judged) for batch in batches]
        return self.kept

    def _judge(
        self,
        group: SampleGroup,
        prefix: list[int],
        asked: Sequence[Asked],
        drawn: Sequence[Sequence[Drawn]],
    ) -> tuple[SampleGroup, list[float], SampleGroup]:
        """Reward the answers of a group.

        Returns:
            the group with the answers that teach something, their advantages, and the group with
            one answer, in case that nothing else in its batch does.
        """
        items, targets, places, advantages = [], [], [], []
        for one, answers in zip(asked, drawn, strict=True):
            rewards = torch.tensor(
                [self._reward(one, group, answer) for answer in answers], dtype=torch.float64
            )
            self.note(
                reward=rewards.tolist(),
                reward_std=rewards.std().item(),
                answer_tokens=[float(len(answer.ids)) for answer in answers],
                unfinished=[float(answer.ids[-1] != self.end_id) for answer in answers],
                equal_groups=float(rewards.max() - rewards.min() < _SAME),
            )
            if rewards.max() - rewards.min() < _SAME:
                continue
            items += [_learned(one, answer) for answer in answers]
            targets += [torch.cat([one.given, answer.times]) for answer in answers]
            places += [one.place] * len(answers)
            advantages += group_advantages(rewards, self.settings["scale_rewards"]).tolist()
        first, answer = asked[0], drawn[0][0]
        spare = replace(
            group,
            prefix_ids=prefix,
            items=[_learned(first, answer)],
            targets=[torch.cat([first.given, answer.times])],
            places=[first.place],
        )
        kept = replace(spare, items=items, targets=targets, places=places)
        return kept, advantages, spare

    def _reward(self, asked: Asked, group: SampleGroup, answer: Drawn) -> float:
        scene = Scene(
            predicted=answer.seconds(group.duration),
            truth=asked.truth,
            duration=group.duration,
            text=self.engine.processor.decode(answer.ids),
            true_text=asked.true_text,
            finished=answer.ids[-1] == self.end_id,
        )
        total = 0.0
        for reward in self.rewards:
            value = reward.value(scene, asked.place)
            if len(self.rewards) > 1:
                self.note(**{f"reward_{reward.name.rpartition('/')[-1]}": value})
            total += reward.weight * value
        return total

    def _lay(self, batch: Batch, judged: Any) -> Batch:
        """Lay the answers of a micro-batch in rows like those that its groups came in."""
        rows = [[next(judged) for _ in row] for row in batch["rows"]]
        learned = [[(kept, adv) for kept, adv, _ in row if adv] for row in rows]
        advantages = [value for row in learned for _, adv in row for value in adv]
        weights = [1.0] * len(advantages)
        groups = [[kept for kept, _ in row] for row in learned if row]
        if not groups:
            # Every process runs as many passes as every other, also where it has nothing to learn.
            groups, advantages, weights = [[rows[0][0][2]]], [0.0], [0.0]
        told = {name: batch[name] for name in batch if name not in ("rows", "num_samples")}
        counts = {"num_samples": int(sum(weights))}
        judgement = _Judged(torch.tensor(advantages), torch.tensor(weights))
        return self.lay(groups) | told | counts | {"objective": judgement}

    # ------------------------------------------------------------------ the loss

    def compute(
        self, model: torch.nn.Module, batch: Batch, divisor: Tensor | None
    ) -> tuple[Tensor, DisTimeOutput]:
        """Return the policy's loss; see `Objective.compute`."""
        judged: _Judged = batch["objective"]
        divisor = float(max(batch["num_samples"] if divisor is None else divisor, 1e-6))
        outputs = self.run(model, batch, divisor)
        log_probs = self._log_probs(outputs, batch)
        if judged.old is None:
            judged.old = log_probs.detach()
        owner = samples_of(batch)[batch["labels"] != IGNORE_INDEX]
        weights = judged.weights.to(log_probs.device)
        advantages = judged.advantages.to(log_probs)[owner]
        policy, is_held = clipped_loss(
            log_probs, judged.old, advantages, self.settings["clip_epsilon"]
        )
        self.note(clipped=is_held[weights[owner] > 0].float().tolist())

        def mean(of_tokens: Tensor) -> Tensor:
            return (mean_per_sample(of_tokens, owner, len(weights)) * weights).sum() / divisor

        outputs.policy_loss, outputs.kl = mean(policy), log_probs.new_zeros(())
        if self.start is not None:
            with self.start.restored() as start:
                reference = self._log_probs(self.run(start, batch, divisor), batch)
            outputs.kl = mean(k3(log_probs, reference))
        # Answers without a time still leave the time modules a gradient on every process.
        unused = 0 * outputs.time_logits.sum()
        return outputs.policy_loss + self.settings["kl_weight"] * outputs.kl + unused, outputs

    def _log_probs(self, outputs: DisTimeOutput, batch: Batch) -> Tensor:
        """Log-probability of each drawn token, and with it of its time, at the temperature."""
        temperature = self.settings["temperature"]
        labels = batch["labels"][batch["labels"] != IGNORE_INDEX]
        logits, outputs.logits = outputs.logits.float() / temperature, None
        logits[:, self.never] = -torch.inf
        log_probs = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        times, _ = supervised_times(batch, self.time_token_id)
        of_times = self.engine.model.time_head.log_prob(outputs.time_logits / temperature, times)
        return log_probs.masked_scatter(
            labels == self.time_token_id, log_probs[labels == self.time_token_id] + of_times
        )


def keep_rows(rows: Sequence[Sequence[SampleGroup]]) -> Batch:
    """Rows as they are, with what the trainer counts of them."""
    return {"rows": rows} | bookkeeping([group for row in rows for group in row])


def _learned(asked: Asked, answer: Drawn) -> Encoded:
    """A drawn answer as the item that is learned."""
    ids = list(answer.ids)
    ignored = [IGNORE_INDEX] * len(asked.suffix)
    times = len(asked.given) + len(answer.intervals)
    return Encoded([*asked.suffix, *ids], [*ignored, *ids], times)
