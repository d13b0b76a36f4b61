"""The interface of captioners: what happens in a video."""

from __future__ import annotations

from typing import ClassVar

from distime.annotate.annotator import Annotator
from distime.annotate.records import Captioned


class Captioner(Annotator):
    """Answers a clip with a `Captioned`."""

    stage: ClassVar[str] = "events"
    record: ClassVar[type[Captioned]] = Captioned
