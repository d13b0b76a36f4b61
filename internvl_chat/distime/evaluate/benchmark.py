"""What a benchmark is: queries about videos in, answers in the published file format out.

A benchmark is a class in a file of its own under `benchmarks/`. It knows nothing of models,
processes or resuming; the runner knows nothing of annotations or result files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from distime.metrics.files import MetricError, read_json
from distime.metrics.registry import BENCHMARKS as METRICS
from distime.processing.prompt import JOIN

if TYPE_CHECKING:
    from distime.evaluate.settings import Settings
    from distime.processing.answers import Answer
    from distime.processing.processor import DisTimeProcessor

NO_ANSWER = [-1, -1]
"""What published files hold where the model named no time."""

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")

Interval = tuple[float, float]
"""(start, end) in seconds."""


class SettingsError(ValueError):
    """A setting does not fit; the message names the flag and the mend."""


@dataclass(frozen=True)
class Query:
    """One question about one video.

    Attributes:
        id: unique within the benchmark.
        video: the video's name, a path below the video root, with or without its suffix.
        question: what the model is asked, without the frames (see `distime.processing.prompt`).
        item: the annotation it comes from, for `Benchmark.write`.
        bound: the part of the video to show, (start, end) in seconds; None for all of it.
    """

    id: str
    video: str
    question: str
    item: Any = field(default=None, compare=False, repr=False)
    bound: Interval | None = None


Answered = Sequence[tuple[Query, "Answer | None"]]
"""Every query in annotation order with its answer; None where the video could not be used."""


class Benchmark(ABC):
    """Base of the benchmarks. A subclass sets the names below and writes the two methods.

    Args:
        settings: validated; `annotation`, `video_root` and `out_dir` are filled in.
    """

    name: ClassVar[str]
    """On the command line."""
    annotation: ClassVar[str]
    """Default annotation, below `internvl_chat/data_example` (`annotation_root`)."""
    videos: ClassVar[str]
    """Default folder of the videos, below `internvl_chat/data`."""
    annotation_root: ClassVar[str] = "data_example"
    ground_truth: ClassVar[str | None] = None
    """File beside the annotation that the metric reads; None: the annotation itself."""
    num_segments: ClassVar[int] = 16
    """Default number of frames."""
    rule: ClassVar[str] = "eval"
    """How frames are chosen, see `distime.processing.sampling`."""
    stages: ClassVar[tuple[int, ...]] = ()
    """The stages that a run must choose from, if there are any."""
    has_times: ClassVar[bool] = True
    """Whether answers name times that can be drawn."""

    def __init__(self, settings: Settings):
        self.settings = settings

    @abstractmethod
    def queries(self) -> Iterable[Query]:
        """Read the annotation.

        Raises:
            SettingsError: it cannot be read; names `--annotation`.
        """

    @abstractmethod
    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write the result files in the published schema; return the one to score."""

    def truth(self, query: Query) -> list[Interval]:
        """Annotated intervals of a query in seconds, for pictures."""
        return []

    @property
    def is_scored(self) -> bool:
        """Whether there is a metric for what this run writes."""
        return True

    @property
    def title(self) -> str:
        """Name of its folder under `internvl_chat/results`."""
        return METRICS[self.name].title

    @property
    def join(self) -> str:
        """What stands between the frames and the question."""
        return JOIN[self.name]

    def processor(self, processor: DisTimeProcessor) -> DisTimeProcessor:
        """Return the processor to ask with; a benchmark may show the model more than frames."""
        return processor

    def read_annotation(self, path: Path | None = None) -> Any:
        """Return the JSON value of the annotation (or of another file).

        Raises:
            SettingsError: the file is missing or no JSON.
        """
        try:
            value, _ = read_json(path or self.settings.annotation, f"annotation of {self.name}")
        except MetricError as error:
            raise SettingsError(f"--annotation: {error}") from None
        return value

    def misfit(self, error: Exception) -> SettingsError:
        """Return the error for an annotation of another form."""
        return SettingsError(
            f"--annotation {self.settings.annotation}: not an annotation of {self.name} "
            f"({error!r}); the format is in docs/EVALUATION.md, `distime prepare` converts the "
            "official files"
        )


def rounded_intervals(answer: Answer) -> list[list[float]]:
    """All times of an answer in seconds, rounded to 0.01 as published; [[-1, -1]] for none."""
    return [[round(e.start, 2), round(e.end, 2)] for e in answer.events] or [NO_ANSWER]


class VideoFinder:
    """Finds videos by name: at the named place below a root, or else anywhere below it.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path):
        self.root = root

    def find(self, name: str) -> Path:
        """Return the path of a video file, gif or folder of frames.

        A video that is not there has the path where it was expected.
        """
        exact = self.root / name
        if exact.exists():
            return exact
        bare = exact.with_name(without_suffix(exact.name))
        named = [bare.with_name(bare.name + suffix) for suffix in SUFFIXES]
        for path in named:
            if path.is_file():
                return path
        return self._elsewhere.get(bare.name, exact if exact.name != bare.name else named[0])

    @cached_property
    def _elsewhere(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(without_suffix(path.name), path)
        return found


def without_suffix(name: str) -> str:
    """Cut off the suffix of a video file, but no other: names may contain dots."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name
