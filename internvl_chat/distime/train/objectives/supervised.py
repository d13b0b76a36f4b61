"""Learning from the annotated answers, as published: words, distributions and IoU of each time."""

from __future__ import annotations

from distime.train.objectives.base import Objective


class Supervised(Objective):
    """The losses of the model alone."""
