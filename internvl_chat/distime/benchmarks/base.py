"""What a benchmark is: official files, queries about videos, result files, scores.

A benchmark is a class in a file of its own, which holds all that is known of it. It knows nothing
of models, processes or resuming; whoever runs it knows nothing of annotations or result files.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from distime import paths
from distime.errors import DisTimeError
from distime.files import FileError, read_json
from distime.processing.questions import moment_retrieval_question

if TYPE_CHECKING:
    from distime.benchmarks.result import Result
    from distime.data.official import Conversion, Keep, Source
    from distime.evaluate.settings import Settings
    from distime.processing.answers import Answer, Event
    from distime.processing.processor import DisTimeProcessor

NO_ANSWER = [-1, -1]
"""What published files hold where the model named no time."""

UNANSWERED = "no answer"
"""What multiple-choice files hold where the video could not be used: wrong for every scorer."""

Interval = tuple[float, float]
"""(start, end) in seconds."""


class SettingsError(DisTimeError):
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
        title: the question in few words, for pictures.
    """

    id: str
    video: str
    question: str
    item: Any = field(default=None, compare=False, repr=False)
    bound: Interval | None = None
    title: str = ""

    @property
    def duration(self) -> float | None:
        """How long the video is by its annotation, in seconds; None where that does not say."""
        value = self.item.get("duration") if isinstance(self.item, dict) else None
        return float(value) if isinstance(value, int | float) else None


Answered = Sequence[tuple[Query, "Answer | None"]]
"""Every query in annotation order with its answer; None where the video could not be used."""


class Choice(NamedTuple):
    """How a multiple choice was answered: the right option in words, and whether it was named."""

    expected: str
    is_right: bool
    is_read: bool = True
    """Whether the answer names an option at all."""


class ScoreOption(NamedTuple):
    """A further argument of `Benchmark.score`, and a flag of `distime score`."""

    choices: tuple[str, ...]
    """What it may be; empty: any text."""
    meaning: str
    metavar: str | None = None


class Benchmark(ABC):
    """Base of the benchmarks. A subclass sets the names below and writes the methods it needs.

    `queries` and `write` are for asking a model, `score` for scoring what was written, `convert`
    for `distime prepare`; `truth` and `choice` for pages that show answers.

    Args:
        settings: validated; `annotation`, `video_root` and `out_dir` are filled in.
    """

    name: ClassVar[str]
    """On the command line."""
    title: ClassVar[str]
    """In tables, and the name of its folder under `results`."""
    rank: ClassVar[float] = math.inf
    """Its place in lists."""
    file: ClassVar[Path | None] = None
    """Where it comes from, if from a file that `--benchmark-file` names."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of annotations that can be named in place of a benchmark and are then asked by it."""

    annotation: ClassVar[str]
    """Default annotation, below `annotation_root`."""
    annotation_root: ClassVar[str] = "data_example"
    """`data_example`, or `data` for an annotation that lies with the videos."""
    ground_truth: ClassVar[str | None] = None
    """File beside the annotation that the metric reads; None: the annotation itself."""
    videos: ClassVar[str]
    """Default folder of the videos, below `data`."""

    owners_prompt: ClassVar[str] = ""
    """How its owners ask, with {query} in it, for `--prompt owners`; '' where they do not."""
    join: ClassVar[str] = ""
    """What stands between the frames and the question; published evaluations differ in this."""
    num_segments: ClassVar[int] = 16
    """Default number of frames."""
    rule: ClassVar[str] = "eval"
    """How frames are chosen, see `distime.processing.sampling`."""
    gif_fps: ClassVar[float | None] = None
    """The rate at which gifs are read; None: as the files say."""
    stages: ClassVar[tuple[int, ...]] = ()
    """The stages that a run must choose from, if there are any."""
    takes: ClassVar[Mapping[str, int | None]] = {}
    """Settings that only this benchmark takes, and in which stage (None: any)."""
    has_times: ClassVar[bool] = True
    """Whether answers name times that can be drawn."""

    predictions: ClassVar[tuple[str, ...]] = ("results.json",)
    """Names of the files that can be scored, best first."""
    file_limit: ClassVar[int] = 1
    """How many prediction files are scored together at most."""
    scored_by_annotation: ClassVar[bool] = True
    """Whether the metric reads an annotation at all."""
    ground_truth_is_optional: ClassVar[bool] = False
    """Whether predictions can also be scored without it."""
    score_options: ClassVar[Mapping[str, ScoreOption]] = {}
    """Further arguments of `score` by name."""

    headline: ClassVar[tuple[str, ...]] = ()
    """The metrics that tables show."""
    released: ClassVar[Mapping[str, float]] = {}
    """Headline values of the published DisTime-InternVL2.5-1B predictions (16 frames), percent."""
    released_8b: ClassVar[Mapping[str, float]] = {}
    """Those of the published DisTime-InternVL2.5-8B predictions, likewise."""
    peers: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """What others published: model -> metric -> percent. The file says where each stands."""

    prepared_as: ClassVar[str | None] = None
    """Name for `distime prepare`; None: its own where it has a `convert`."""
    official_queries: ClassVar[int | None] = None
    """Published number of queries, None where it is not known."""
    official_videos: ClassVar[int | None] = None
    """Published number of videos, likewise."""
    official_note: ClassVar[str] = ""
    """What to know when the numbers differ."""

    def __init__(self, settings: Settings):
        self.settings = settings

    @classmethod
    def published_models(cls) -> dict[str, Mapping[str, float]]:
        """The headline values of the published predictions by model size, where there are any."""
        both = {"1B": cls.released, "8B": cls.released_8b}
        return {size: values for size, values in both.items() if values}

    @classmethod
    def result_folder(cls, annotation: Path) -> str:
        """Name of the folder under `results`."""
        return cls.title

    @classmethod
    def video_folder(cls, annotation: Path) -> Path:
        """Where the videos lie when nobody says otherwise."""
        return paths.videos() / cls.videos

    @abstractmethod
    def queries(self) -> Iterable[Query]:
        """Read the annotation.

        Raises:
            SettingsError: it cannot be read; names `--annotation`.
        """

    @abstractmethod
    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write the result files in the published schema; return the one to score."""

    def truth(self, query: Query) -> list[Event]:
        """Annotated events of a query, for pictures; with words where those are predicted too."""
        return []

    def choice(self, query: Query, answer: Answer) -> Choice | None:
        """How a multiple choice was answered, for reports; None where the answer names times."""
        return None

    @staticmethod
    def scored_key(query: Query) -> Hashable:
        """What `score` knows a query by, for its ``only``."""
        return query.id

    @classmethod
    def score(
        cls,
        predictions: Path | Sequence[Path],
        ground_truth: Path | None,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
        **options: Any,
    ) -> Result:
        """Score prediction files.

        Args:
            predictions: what `write` wrote, or the owners' format; several if `file_limit` allows.
            ground_truth: the annotation that the metric reads.
            published: also compute what the published scorer gives, defects included.
            only: `scored_key` of the queries that count, where only some were asked. A benchmark
                that does not take this is always scored against all.
            options: those of `score_options`.

        Raises:
            FileError: a file does not fit; the message says where.
        """
        raise FileError(f"{cls.name}: it has no metric; its class defines no `score`.")

    of_synthetic: ClassVar[Callable[[Sequence, Path], tuple[Path, Path]] | None] = None
    """Writes annotation and ground truth for synthetic videos, for the quickstart."""
    convert: ClassVar[Callable[[Source, Keep], Conversion] | None] = None
    """From the official files to the annotation (no instance), for `distime prepare`."""

    def processor(self, processor: DisTimeProcessor) -> DisTimeProcessor:
        """Return the processor to ask with; a benchmark may show the model more than frames."""
        return processor

    def moment_question(self, sentence: str) -> str:
        """When does `sentence` happen? In DisTime's words, or in those of the owners."""
        if self.settings.prompt == "owners":
            return self.owners_prompt.replace("{query}", sentence)
        return moment_retrieval_question(sentence)

    def shown_question(self, query: Query) -> str:
        """The question as published files hold it: behind one line for each frame.

        Where the number of frames depends on the video, one line stands for all.
        """
        frames = "\n".join(["<FRAME_TIME_REF>: <image>"] * (self.settings.num_segments or 1))
        return frames + self.join + query.question

    def read_annotation(self, path: Path | None = None, flag: str = "annotation") -> Any:
        """Return the JSON value of the annotation, or of the file that `flag` names.

        Raises:
            SettingsError: the file is missing or no JSON.
        """
        try:
            value, _ = read_json(path or self.settings.annotation, f"{flag} of {self.name}")
        except FileError as error:
            raise SettingsError(f"--{flag}: {error}") from None
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


def captioned_events(answer: Answer) -> list[Event]:
    """The events of a dense caption. A time without words describes nothing and is left out."""
    return [event for event in answer.events if event.text]


def restricted(truth: Mapping[Any, Any], only: Collection[Hashable] | None) -> dict[Any, Any]:
    """Return the truth of the keys that count, see `Benchmark.score`."""
    return {key: value for key, value in truth.items() if only is None or key in only}
