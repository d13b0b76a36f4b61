"""Captions, with times, from a DisTime checkpoint: dense captioning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from distime.annotate.annotator import Clip, Outcome
from distime.annotate.caption_texts import is_caption
from distime.annotate.captioner import Captioner
from distime.annotate.locator import rounded
from distime.annotate.records import Caption, Captioned
from distime.annotate.with_checkpoint import WithCheckpoint
from distime.data.problems import show
from distime.processing.questions import EVENT_CAPTIONING

if TYPE_CHECKING:
    from distime.processing.answers import Answer


class DenseCaptions(WithCheckpoint, Captioner):
    """Asks a checkpoint to list the events of a video."""

    kind: ClassVar[str] = "distime"
    flag: ClassVar[str] = "--captioner distime"
    asks_by: ClassVar[tuple[str, ...]] = ("max_new_tokens", "dtype")

    def outcomes(self, clips: Iterable[Clip]) -> Iterator[Outcome]:
        """See `Annotator.outcomes`."""
        from distime.annotate.asking import ask

        asked = ((clip, [EVENT_CAPTIONING]) for clip in clips)
        for clip, answers in ask(self.model, asked, self.settings.max_new_tokens):
            (answer,) = answers
            if isinstance(answer, Exception):
                yield Outcome(clip.number, None, (str(answer),))
            else:
                yield _outcome(clip, answer)


def _outcome(clip: Clip, answer: Answer) -> Outcome:
    captions, wordless = [], 0
    for event in answer.events:
        if is_caption(event.text):
            location = rounded(event.start, event.end, event.confidence, answer.duration)
            captions.append(Caption(" ".join(event.text.split()), location))
        else:
            wordless += 1
    if not captions:
        return Outcome(clip.number, None, (f"no caption in the answer {show(answer.text)}",))
    notes = [f"{wordless} of {len(answer.events)} events have no words"] if wordless else []
    record = Captioned(clip.video, answer.duration, tuple(captions))
    return Outcome(clip.number, record, tuple(notes))
