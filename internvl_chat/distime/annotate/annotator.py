"""What captioners and locators have in common: how they are named, asked, and what they answer.

A kind of captioner is one file in `captioners/`, a kind of locator one in `locators/`: a class with
a `kind`, derived from `Annotator`. Installed packages add theirs by the entry point groups
``distime.captioners`` and ``distime.locators``.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distime.annotate.annotation_settings import AnnotationSettings, naming
from distime.annotate.records import Described, Located, Record, RecordFile, Trouble
from distime.benchmarks.base import SettingsError
from distime.errors import DisTimeError
from distime.model.hub import is_model, why_no_checkpoint
from distime.processing.ahead import load_ahead

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A video to be annotated.

    Attributes:
        number: its place among those of this pass.
        video: its name, the path below the folder of videos.
        path: where it is.
        described: its events, once they are known.
        located: where the locators find them, by locator, once that is known.
    """

    number: int
    video: str
    path: Path
    described: Described | None = None
    located: Mapping[str, Located] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a clip.

    Attributes:
        number: of the clip.
        record: what was found; None where the video could not be used.
        notes: why not, or what was lost beside it.
    """

    number: int
    record: Record | None
    notes: tuple[str, ...] = ()


class UnusableError(DisTimeError):
    """One video cannot be annotated; the others can."""


class Annotator(ABC):
    """A captioner, a locator or another one that looks at one video at a time.

    Args:
        target: the file, folder or name behind the kind.
        name: what files and messages call it.
        settings: of the run. Whatever does not fit is refused here, before anything is loaded.

    Raises:
        SettingsError: the target cannot be used; names flag and mend.
    """

    kind: ClassVar[str]
    target_form: ClassVar[str] = "FOLDER"
    stage: ClassVar[str]
    record: ClassVar[type[Record]]

    def __init__(self, target: str, name: str, settings: AnnotationSettings):
        self.target, self.name, self.settings = target, name, settings

    @property
    def workers(self) -> int:
        """Background threads of `load`."""
        return self.settings.workers

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the outcomes: those of other settings are not mixed with them."""

    def asked(self, clip: Clip) -> list[Any]:
        """What of a clip, beside its video, decides its outcome: by default the events' words."""
        return [[event.id, event.text] for event in clip.described.events]

    def troubles(self, videos: Sequence[str]) -> Iterator[Trouble]:
        """What is wrong beside the outcomes; refuses what cannot be of these videos at all.

        Raises:
            DisTimeError: nothing fits.
        """
        return iter(())

    def open(self, device: torch.device) -> None:  # noqa: B027 (most files need no opening)
        """Load what answers."""

    def close(self) -> None:  # noqa: B027
        """Give back what `open` loaded: the next annotator needs the memory."""

    def load(self, clip: Clip) -> Any:  # noqa: B027
        """Prepare a clip; runs in background threads."""

    def answer(self, clip: Clip, loaded: Any) -> tuple[Record, Sequence[str]]:
        """Return what was found in a clip, and notes.

        Raises:
            DisTimeError: the video cannot be used.
        """
        raise NotImplementedError

    def outcomes(self, clips: Iterable[Clip]) -> Iterator[Outcome]:
        """Annotate clips, in any order. `UnusableError` and errors of videos end one clip alone.

        Raises:
            DisTimeError: a setting turns out to be wrong, whatever the video.
        """
        for clip, loading in load_ahead(clips, self.load, self.workers):
            try:
                record, notes = self.answer(clip, loading.result())
            except self.failures as error:
                yield Outcome(clip.number, None, (str(error),))
            else:
                yield Outcome(clip.number, record, tuple(notes))

    def check(self, events: RecordFile[Described]) -> None:  # noqa: B027 (most files have nothing to check)
        """Refuse what cannot be of these events; a locator's, before any video is looked at.

        Raises:
            DisTimeError: something does not fit.
        """

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What is wrong with one video and must not end the run."""
        from distime.processing.video import VideoError

        return (UnusableError, VideoError)


def model_folder(flag: str, target: str) -> Path:
    """Return the folder of a model that a flag names.

    Raises:
        SettingsError: it holds none; says what it is instead.
    """
    folder = Path(target)
    if not is_model(folder):
        raise SettingsError(f"{flag}:{target}: it {why_no_checkpoint(folder)}")
    return folder


# ------------------------------------------------------------------ by name


def make(
    flag: str, package: str, specs: Sequence[str], settings: AnnotationSettings
) -> list[Annotator]:
    """Return the annotators that a flag names.

    Args:
        flag: such as "--captioner".
        package: of the modules that define the kinds, one of "captioners" and "locators".
        specs: `KIND:TARGET` or `KIND:NAME=TARGET`.
        settings: of the run.

    Raises:
        SettingsError: an unknown kind, two of one name, or a target that cannot be used.
    """
    known = kinds(package)
    forms = ", ".join(f"{kind}:{one.target_form}" for kind, one in sorted(known.items()))
    made: dict[str, Annotator] = {}
    for spec in specs:
        kind, name, target = naming(spec)
        if kind not in known or not target:
            raise SettingsError(f"{flag} {spec}: give one of {forms}")
        if name in made:
            raise SettingsError(
                f"{flag} {spec}: another one is named {name}: give it a name of its own, "
                f"{kind}:NAME={target}"
            )
        made[name] = known[kind](target, name, settings)
    return list(made.values())


def kinds(package: str) -> dict[str, type[Annotator]]:
    """Return the classes of a package's modules, and of installed packages, by their kinds."""
    root = importlib.import_module(f"distime.annotate.{package}")
    modules = [
        importlib.import_module(f"{root.__name__}.{module.name}")
        for module in pkgutil.iter_modules(root.__path__)
    ]
    found = {
        one.kind: one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__ == module.__name__ and "kind" in vars(one)
    }
    for point in entry_points(group=f"distime.{package}"):
        try:
            one = point.load()
        except Exception as error:  # whatever a stranger's module does when it is imported
            logger.warning("%s of %s: left out (%r)", package, point.value, error)
            continue
        if found.setdefault(one.kind, one) is not one:
            logger.warning("%s: left out, there is a kind %s already", point.value, one.kind)
    return found
