"""Locations that captioners brought with their words: dense captioning, or a file with times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotator import Clip, UnusableError
from distime.annotate.locator import Locator, not_found
from distime.annotate.records import Located
from distime.benchmarks.base import SettingsError

if TYPE_CHECKING:
    from distime.annotate.annotation_settings import AnnotationSettings


class Told(Locator):
    """Takes the times of one captioner, by its name."""

    kind: ClassVar[str] = "told"
    target_form: ClassVar[str] = "CAPTIONER"

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        super().__init__(target, name, settings)
        names = settings.captioner_names
        if names and target not in names:
            raise SettingsError(
                f"--locator told:{target}: no captioner has this name; there are {', '.join(names)}"
            )

    def fingerprint(self) -> dict[str, Any]:
        """See `Annotator.fingerprint`."""
        return {"captioner": self.target}

    def asked(self, clip: Clip) -> list[Any]:
        """The times that were told, too: words may stay when times change."""
        told = [event.locations.get(self.target) for event in clip.described.events]
        return super().asked(clip) + [one and one.to_dict() for one in told]

    def answer(self, clip: Clip, loaded: None) -> tuple[Located, Sequence[str]]:
        """See `Annotator.answer`."""
        events = clip.described.events
        told = {e.id: e.locations[self.target] for e in events if self.target in e.locations}
        if not told:
            raise UnusableError(f"{self.target} told no time of an event of {clip.video}")
        missing = [event for event in events if event.id not in told]
        return Located(clip.video, told), not_found(
            missing, len(events), f"{self.target} told no time"
        )
