"""Locations from a DisTime checkpoint: one pass over each video for all of its events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from distime.annotate.annotator import Clip, Outcome
from distime.annotate.locator import Locator, not_found, rounded
from distime.annotate.records import Located
from distime.annotate.with_checkpoint import WithCheckpoint
from distime.processing.questions import moment_retrieval_question

if TYPE_CHECKING:
    from distime.processing.answers import Answer

ANSWER_TOKENS = 64
"""An answer that names a time takes about ten; longer ones do not come to it."""


class Grounding(WithCheckpoint, Locator):
    """Asks a checkpoint when each event happens, and takes the time that it is surest of."""

    kind: ClassVar[str] = "distime"
    flag: ClassVar[str] = "--locator distime"

    def outcomes(self, clips: Iterable[Clip]) -> Iterator[Outcome]:
        """See `Annotator.outcomes`."""
        from distime.annotate.asking import ask

        asked = (
            (clip, [moment_retrieval_question(event.text) for event in clip.described.events])
            for clip in clips
        )
        for clip, answers in ask(self.model, asked, ANSWER_TOKENS):
            yield _outcome(clip, answers)


def _outcome(clip: Clip, answers: list[Answer | Exception]) -> Outcome:
    events = clip.described.events
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    if len(errors) == len(answers):
        return Outcome(clip.number, None, (str(errors[0]),))
    found, missing = {}, []
    for event, answer in zip(events, answers, strict=True):
        times = [] if isinstance(answer, Exception) else answer.events
        best = max(times, key=lambda time: time.confidence, default=None)
        location = best and rounded(best.start, best.end, best.confidence, answer.duration)
        if location is None:
            missing.append(event)
        else:
            found[event.id] = location
    notes = not_found(missing, len(events), "the answer names no time")
    notes += dict.fromkeys(str(error) for error in errors)
    return Outcome(clip.number, Located(clip.video, found), tuple(notes))
