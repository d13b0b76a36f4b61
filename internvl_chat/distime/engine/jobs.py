"""What the engine is asked, and what comes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from distime.engine.decoding import Decoding, EngineError
from distime.processing.answers import Answer
from distime.processing.processor import PrefixInputs


@dataclass(eq=False)
class Job:
    """One video and its questions.

    Attributes:
        load: prepares the inputs; runs in a background thread. What it raises ends this job alone.
        decoding: how every answer is decoded.
        samples: answers to each question; more than one with `do_sample` alone.
        tag: whatever the caller wants to find again.
        group: jobs that follow one another with the same group are decoded among themselves alone
            and enter in order, whichever is loaded first. What shares a batch changes the last bit
            of a number; so a group's answers are the same, bit for bit, whenever it is answered.
        on_token: called as `(question, sample, ids, intervals)` after each token of an answer,
            with all its ids and normalised intervals so far; ids shrink to none where an answer
            had to be begun again.

    Raises:
        EngineError: several samples of the likeliest answer, which are all the same.
    """

    load: Callable[[], PrefixInputs]
    decoding: Decoding = field(default_factory=Decoding)
    samples: int = 1
    tag: Any = None
    group: int | None = None
    on_token: Callable[[int, int, Sequence[int], Sequence[torch.Tensor]], None] | None = None
    cancelled: bool = field(default=False, init=False)

    def __post_init__(self):
        if self.samples < 1 or (self.samples > 1 and not self.decoding.do_sample):
            raise EngineError(
                f"{self.samples} samples: give at least 1, and do_sample=True for more than one"
            )
        if self.decoding.seed is None:  # fixed now: an answer that is begun again must be the same
            self.decoding = replace(self.decoding, seed=random.getrandbits(32))

    def cancel(self) -> None:
        """Answer nothing more of this job; it comes back finished, with what it has, soon."""
        self.cancelled = True


@dataclass(frozen=True)
class Finished:
    """A job at its end.

    Attributes:
        job: as it was given.
        answers: per question its samples; None for what was cancelled. Empty after an error.
        error: what its loading raised, or why its answers cannot be used.
        ran_away: how many answers were ended since they repeated themselves.
    """

    job: Job
    answers: Sequence[Sequence[Answer | None]] = ()
    error: Exception | None = None
    ran_away: int = 0

    def first_answers(self) -> list[Answer]:
        """Return the one answer to every question.

        Raises:
            Exception: the job's error.
        """
        if self.error is not None:
            raise self.error
        return [samples[0] for samples in self.answers]


class JobSource(Protocol):
    """Where jobs come from."""

    def get(self, wait: bool) -> Job | None:
        """Return the next job; None if there is none now, or, having waited, none any more."""
