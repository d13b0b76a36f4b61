"""A run: its settings, its videos and its annotators, from the first stage to the last."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path

from distime.annotate.annotation_settings import AnnotationSettings
from distime.annotate.annotator import Annotator, make
from distime.annotate.comparer import Comparer
from distime.annotate.records import AnnotationFolder, Trouble
from distime.annotate.templates import BUILT_IN, read_templates
from distime.annotate.video_list import list_videos
from distime.benchmarks.base import SettingsError
from distime.files import read_json, write_json

logger = logging.getLogger(__name__)

MODULES = {
    "events": "distime.annotate.describing",
    "locations": "distime.annotate.locating",
    "similarity": "distime.annotate.comparing",
    "selection": "distime.annotate.selecting",
    "dialogues": "distime.annotate.dialogues",
}
"""Where each stage is; its `run(run)` returns lines for the summary and the number of failures."""


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes:
        lines: the summary, in words.
        failed: the most videos that failed in one pass.
    """

    lines: list[str] = field(default_factory=list)
    failed: int = 0


class AnnotationRun:
    """All that stages need to know. Making one refuses, without torch, what cannot be.

    Args:
        settings: of the run.

    Raises:
        DisTimeError: there is no video, a captioner or locator cannot be used, its file is about
            other videos, or a template is wrong.
    """

    def __init__(self, settings: AnnotationSettings):
        self.settings = settings
        self.folder = AnnotationFolder(settings.out)
        names, unwritable = list_videos(settings.videos)
        self.videos = names[: settings.limit]
        stages = settings.stages
        self.captioners = (
            make("--captioner", "captioners", settings.captioner, settings)
            if "events" in stages
            else []
        )
        self.locators = (
            make("--locator", "locators", settings.locator, settings)
            if "locations" in stages
            else []
        )
        self.comparer = None
        if settings.similarity is not None:
            self.comparer = Comparer(str(settings.similarity), "similarity", settings)
        self.templates = read_templates(settings.templates or BUILT_IN)
        self.troubles: dict[str, list[Trouble]] = {}
        for one in [*self.captioners, *self.locators]:
            self.troubles[one.name] = list(one.troubles(self.videos))
        if self.captioners:
            self.troubles[self.captioners[0].name] += [
                Trouble(name, "events", self.captioners[0].name, "its name is no text: rename it")
                for name in unwritable
            ]
        self._check_earlier_stages()

    def _check_earlier_stages(self) -> None:
        stages = self.settings.stages
        if "events" not in stages and not self.folder.events.is_file():
            raise SettingsError(
                f"--stages {','.join(stages)}: {self.folder.events} is not there yet; begin with "
                "the stage events"
            )
        needs_locations = "locations" not in stages and {"similarity", "selection"} & set(stages)
        if needs_locations and not self.locator_names:
            raise SettingsError(
                f"--stages {','.join(stages)}: {self.folder.locations('x').parent} holds no "
                "locations yet; begin with the stage locations"
            )
        if stages == ("dialogues",) and not self.folder.selected.is_file():
            raise SettingsError(
                f"--stages dialogues: {self.folder.selected} is not there yet; begin with the "
                "stage selection"
            )

    @cached_property
    def locator_names(self) -> list[str]:
        """The locators of this run, or, where it has none, all that the folder has files of."""
        if self.locators:
            return [one.name for one in self.locators]
        files = self.folder.locations("x").parent.glob("*.jsonl")
        return sorted(path.name.removesuffix(".jsonl") for path in files)

    def path(self, video: str) -> Path:
        """Where a video is."""
        return self.settings.videos / video

    def key(self, video: str, *asked: object) -> str:
        """Identify what is asked about a video; it changes with that, and with the file's size."""
        try:
            size = self.path(video).stat().st_size
        except OSError:
            size = -1
        return hashlib.sha256(json.dumps([video, size, *asked]).encode()).hexdigest()[:16]

    def of(self, annotator: Annotator) -> list[Trouble]:
        """What is wrong with an annotator beside its outcomes."""
        return self.troubles.get(annotator.name, [])


def run_stages(run: AnnotationRun) -> RunSummary:
    """Run the stages that the settings name; under torchrun every process calls this.

    Raises:
        DisTimeError: a stage has nothing to work on, or a setting turns out to be wrong.
    """
    from distime.annotate.passes import by_the_first

    lines: list[str] = []
    failed = 0
    for stage in run.settings.stages:
        by_the_first(lambda stage=stage: _record(run, stage))
        said, lost = import_module(MODULES[stage]).run(run)
        failed = max(failed, lost)
        lines += [f"{stage:<11}{line}" for line in said]
    return RunSummary(lines, failed)


def _record(run: AnnotationRun, stage: str) -> None:
    """Keep in `settings.json` what the stage was asked for, beside the other stages."""
    from distime.provenance import versions

    path = run.folder.settings
    before = read_json(path, "settings of a run")[0] if path.is_file() else {}
    stages = before.get("stages", {}) if isinstance(before, dict) else {}
    stages[stage] = {"settings": run.settings.to_dict(), "versions": versions()}
    write_json(path, {"videos": str(run.settings.videos.resolve()), "stages": stages})
