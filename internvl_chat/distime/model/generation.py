"""Time in generation: what the loop of transformers must remember from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.generation import GenerateDecoderOnlyOutput


@dataclass
class DisTimeGenerateOutput(GenerateDecoderOnlyOutput):
    """The output of `generate` with `return_dict_in_generate=True`.

    Args:
        times: per row the intervals `(n, 2)` of its generated `<TIME_STAMP>` tokens in order, in
            normalised time. Nothing orders start and end.
        time_distributions: per row the distributions `(n, 2, reg_max + 1)` whose expectations they
            are.
    """

    times: list[Tensor] | None = None
    time_distributions: list[Tensor] | None = None


@dataclass
class TimeTrace:
    """Carried as a model kwarg through one call of `generate`.

    Args:
        hidden_state: `(B, C)`, the last hidden states of the latest step: those that predicted the
            token which the next step will see.
        prompt_intervals: per row the intervals `(n, 2)` of the `<TIME_STAMP>` tokens of its prompt,
            NaN where the token keeps its own embedding.
        distributions: per row the distribution `(2, reg_max + 1)` of every generated token.
        intervals: per row the interval `(2,)` of every generated token.
        prompt_length: number of token ids before the first generated one.
    """

    hidden_state: Tensor | None = None
    prompt_intervals: list[Tensor] = field(default_factory=list)
    distributions: list[list[Tensor]] = field(default_factory=list)
    intervals: list[list[Tensor]] = field(default_factory=list)
    prompt_length: int = 0

    def begin(self, input_ids: Tensor, time_token_id: int, time_targets: Tensor | None) -> None:
        """Record the prompt: ids `(B, T)` and one interval per `<TIME_STAMP>`, if known."""
        counts = (input_ids == time_token_id).sum(-1).tolist()
        if time_targets is None:
            time_targets = torch.full((sum(counts), 2), torch.nan, device=input_ids.device)
        if len(time_targets) != sum(counts):
            raise ValueError(
                f"the prompts have {sum(counts)} <TIME_STAMP> tokens, "
                f"but time_targets has {len(time_targets)} intervals"
            )
        self.prompt_intervals = list(time_targets.split(counts))
        self.distributions = [[] for _ in counts]
        self.intervals = [[] for _ in counts]
        self.prompt_length = input_ids.shape[1]

    def append(self, rows: list[int], distributions: Tensor, intervals: Tensor) -> None:
        """Record the times `(len(rows), ...)` of the tokens that these rows have just emitted."""
        for row, distribution, interval in zip(rows, distributions, intervals, strict=True):
            self.distributions[row].append(distribution)
            self.intervals[row].append(interval)

    def all_intervals(self) -> Tensor:
        """Intervals `(E, 2)` of all `<TIME_STAMP>` tokens so far, in batch order."""
        rows = zip(self.prompt_intervals, self.intervals, strict=True)
        return torch.cat(
            [part for prompt, new in rows for part in (prompt, *(t[None] for t in new))]
        )


@dataclass
class SharedPrefix:
    """The keys and values of a prompt's beginning (one video), computed once for many questions.

    Args:
        cache: of batch size 1.
        length: number of tokens in it.
    """

    cache: Cache
    length: int

    def repeated(self, count: int) -> DynamicCache:
        """Return a new cache that holds this prefix `count` times."""
        copy = DynamicCache()
        for index, layer in enumerate(self.cache.layers):
            copy.update(
                layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), index
            )
        return copy
