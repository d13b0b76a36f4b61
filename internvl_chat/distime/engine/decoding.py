"""How an answer is decoded, and the choice of the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from distime.errors import DisTimeError

_RUNAWAY = 32  # tokens of the shortest stretch that repeats itself
_PERIOD = 128  # tokens of the longest sequence that is looked for
_PIECE = 1024  # tokens whose weights lie in the processor's cache with room to spare


class EngineError(DisTimeError):
    """A request cannot be answered; the message says what to give instead."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How one answer is decoded; the names are those of `generate` of transformers.

    Attributes:
        max_new_tokens: longest answer.
        min_new_tokens: an answer does not end before.
        do_sample: draw tokens; otherwise the likeliest is taken.
        temperature: divides the logits.
        top_k: draw among the likeliest k, 0 for all.
        top_p: draw among the likeliest that together have this probability.
        seed: of the draws. The same seed gives the same answer whatever is decoded beside it;
            None for other draws every time.
        stop_ids: tokens that end the answer beside the end of the turn; each is kept.
        never_ids: tokens that are not chosen.
        max_repeats: an answer ends when it says the same so many times running, see `says_again`; 0
            lets it go on.
        sample_times: also draw times from their distributions, at the same temperature, instead of
            taking the expectation.

    Raises:
        EngineError: a value is out of range; names it.
    """

    max_new_tokens: int = 1000
    min_new_tokens: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    never_ids: tuple[int, ...] = ()
    max_repeats: int = 0
    sample_times: bool = False

    def __post_init__(self):
        if self.max_new_tokens < 1 or not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise EngineError(
                f"max_new_tokens is {self.max_new_tokens} and min_new_tokens "
                f"{self.min_new_tokens}: give at least 1, and no minimum above the maximum"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise EngineError(
                f"temperature is {self.temperature}: give a positive number, or do_sample=False "
                "for the likeliest answer"
            )
        if self.max_repeats < 0 or self.max_repeats == 1:
            raise EngineError(f"max_repeats is {self.max_repeats}: give 0 for never, or at least 2")
        if self.sample_times and not self.do_sample:
            raise EngineError("sample_times needs do_sample=True")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise EngineError(
                f"top_k is {self.top_k} and top_p {self.top_p}: give at least 0, and a share above "
                "0 and up to 1"
            )

    def generator(self, number: int, device: torch.device) -> torch.Generator | None:
        """Return the source of an answer's draws; answers differ by their `number`."""
        if not self.do_sample:
            return None
        return torch.Generator(device).manual_seed(((self.seed or 0) * 1_000_003 + number) % 2**63)


def says_again(ids: Sequence[int], times: int) -> bool:
    """Whether an answer has run away: its end is one sequence, so many times running.

    Words count, times do not. A stretch below `_RUNAWAY` tokens is none: "10000" repeats a token.

    Args:
        ids: of the answer so far.
        times: at least 2.
    """
    for period in range(1, min(_PERIOD, len(ids) // times) + 1):
        length = period * max(times, -(-_RUNAWAY // period))
        end = ids[-length:]
        if length <= len(ids) and end[period:] == end[:-period]:
            return True
    return False


def logits_of(head: nn.Module, hidden: Tensor) -> Tensor:
    """Run the output head over a few rows, piece by piece where that is faster.

    A CPU's library of matrices reads a wide weight slowly for more than one row and fewer than
    about fifty: 16 rows and 151,674 tokens take 83 ms at once and 59 in pieces.

    Args:
        head: from C numbers to the vocabulary.
        hidden: `(rows, C)`.

    Returns:
        `(rows, vocabulary)`.
    """
    is_plain = type(head) is nn.Linear and head.bias is None and hidden.dtype == torch.float32
    if not is_plain or hidden.device.type != "cpu" or not 1 < len(hidden) < 50:
        return head(hidden)
    return torch.cat([linear(hidden, piece) for piece in head.weight.split(_PIECE)], dim=-1)


def draw(logits: Tensor, decoding: Decoding, generator: torch.Generator | None) -> Tensor:
    """Draw a token.

    Args:
        logits: float32 `(vocabulary,)`.
        decoding: says among which.
        generator: of the draws.

    Returns:
        int64 `(1,)`.
    """
    scores, ids = (logits / decoding.temperature), None
    if 0 < decoding.top_k < len(scores):
        scores, ids = scores.topk(decoding.top_k)
    probabilities = scores.softmax(-1)
    if decoding.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # The token that crosses the share still belongs to it.
        beyond = ordered.cumsum(-1) - ordered >= decoding.top_p
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    chosen = torch.multinomial(probabilities, 1, generator=generator)
    return chosen if ids is None else ids[chosen]


def choose(
    logits: Tensor,
    decodings: Sequence[Decoding],
    generators: Sequence[torch.Generator | None],
    lengths: Sequence[int],
    end_id: int,
) -> list[int]:
    """Choose the next token of every row; the one time a step waits for the device.

    Args:
        logits: `(rows, vocabulary)`; changed in place.
        decodings: of each row.
        generators: of each row, None where it takes the likeliest.
        lengths: tokens that each row has already.
        end_id: the token that ends an answer, and is no part of it.
    """
    logits = logits.float()
    for row, (decoding, length) in enumerate(zip(decodings, lengths, strict=True)):
        never = list(decoding.never_ids)
        if length < decoding.min_new_tokens:
            # A token that ends an answer as a part of it may be the last one that is needed.
            stops = decoding.stop_ids if length + 1 < decoding.min_new_tokens else ()
            never += [end_id, *stops]
        for token in never:  # by number: a list would have to be sent to the device
            logits[row, token] = -torch.inf
    tokens = logits.argmax(-1)
    for row, (decoding, generator) in enumerate(zip(decodings, generators, strict=True)):
        if generator is not None:
            tokens[row : row + 1] = draw(logits[row], decoding, generator)
    return tokens.tolist()
