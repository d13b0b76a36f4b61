"""Captions, with times, from a DisTime checkpoint: dense captioning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Clip, Outcome, model_folder
from distime.annotate.caption_texts import is_caption
from distime.annotate.captioner import Captioner
from distime.annotate.locator import rounded
from distime.annotate.records import Caption, Captioned
from distime.data.problems import show
from distime.evaluate.settings import checkpoint_digest
from distime.processing.questions import EVENT_CAPTIONING

if TYPE_CHECKING:
    import torch

    from distime.annotate.annotation_settings import AnnotationSettings
    from distime.processing.answers import Answer


class DenseCaptions(Captioner):
    """Asks a checkpoint to list the events of a video."""

    kind: ClassVar[str] = "distime"

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        self.folder = model_folder(f"--captioner {self.kind}", target)

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`."""
        names = ("max_new_tokens", "dtype")
        return {
            "checkpoint": checkpoint_digest(self.folder),
            **{name: getattr(self.settings, name) for name in names},
        }

    def open(self, device: torch.device) -> None:
        """Load the checkpoint."""
        from distime.annotate.asking import load

        self.model = load(self.folder, self.settings, device)

    def close(self) -> None:
        """See `Annotator.close`."""
        del self.model

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
