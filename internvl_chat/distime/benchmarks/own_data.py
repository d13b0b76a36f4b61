"""A user's own videos: what training reads (docs/DATA.md), asked and scored like a benchmark.

``distime evaluate held_out.jsonl --checkpoint X`` asks the first question of every item about a
video, as it stands, and compares the answer with the item's own. What an answer is follows from
its words, or from the item's key ``"task"``:

* ``"grounding"``: it holds ``<TIME_STAMP>``. R1@t and mIoU compare the first time with the true
  interval that fits it best; set_mIoU and set_F1 all times with all true intervals.
* ``"captioning"``: it begins with ``<TIME_STAMP>``, and words follow each. SODA_c, CIDEr, METEOR
  and the F1 of the times, as in `distime.metrics.dense_captioning`.
* ``"choice"``: it names one of the options that the question lists a line each. Accuracy.

What cannot be asked is counted and named, with the first line of its kind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distime.benchmarks.base import Answered, Benchmark, Choice, Query, SettingsError
from distime.benchmarks.result import Result
from distime.data.problems import AnnotationError, show
from distime.files import FileError, read_json, write_json
from distime.metrics import ptb
from distime.metrics.choices import options_in, read_choice
from distime.metrics.dense_captioning import (
    CaptionedVideo,
    TimedCaptions,
    captioning_metrics,
    localisation_metrics,
    needed_pairs,
)
from distime.metrics.interval_sets import set_iou
from distime.metrics.intervals import NO_ANSWER, Interval, iou
from distime.metrics.matching import matched_f1
from distime.metrics.meteor import Aligner
from distime.metrics.moments import THRESHOLDS, retrieval
from distime.metrics.multiple_choice import percent, unread_warning
from distime.model.tokens import TIME_STAMP
from distime.processing.answers import Answer, Event, captions
from distime.values import expect, interval

if TYPE_CHECKING:
    from distime.data.meta import DataSource
    from distime.data.schema import TrainingItem
    from distime.processing.processor import DisTimeProcessor

GROUNDING, CAPTIONING, CHOICE = TASKS = ("grounding", "captioning", "choice")

FORM = 'expected [{"id", "question", "answer", "intervals"}]; is this another benchmark\'s file?'


@dataclass(frozen=True)
class OwnItem:
    """What is asked of one line.

    Attributes:
        id: the line's number, behind the source's name where a meta file has named it.
        place: ``file:line``.
        task: one of `TASKS`.
        video: path below the video root, or absolute.
        question: the first human turn, its media tag included.
        answer: what the item answers to it.
        windows: one for each ``<TIME_STAMP>`` of the answer, seconds.
        system: the system message, None for the checkpoint's own.
    """

    id: str
    place: str
    task: str
    video: str
    question: str
    answer: str
    windows: tuple[Interval, ...] = ()
    system: str | None = None


@dataclass
class OwnFile:
    """The items of a file, and what is not asked: reason -> places."""

    items: list[OwnItem] = field(default_factory=list)
    not_asked: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, reason: str, place: str) -> None:
        """Note what is not asked."""
        self.not_asked.setdefault(reason, []).append(place)

    def warnings(self) -> list[str]:
        """Say what is not asked: one line for each reason."""
        return [
            f"not asked: {len(places)} {reason}, first {places[0]}"
            for reason, places in self.not_asked.items()
        ]


class OwnData(Benchmark):
    """The annotation is a jsonl file or a meta file of training."""

    name = "own_data"
    title = "OwnData"
    rank = 1000
    suffixes = (".jsonl", ".json")
    annotation = "own/held_out.jsonl"
    videos = "own"
    join = "\n"  # as training has it where a question has no tag
    headline = (
        "R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "set_mIoU", "set_F1",
        "SODA_c", "CIDEr", "METEOR", "caption_F1", "Accuracy",
    )  # fmt: skip

    def __init__(self, settings: Any):
        super().__init__(settings)
        self.title = self.result_folder(settings.annotation)

    @classmethod
    def result_folder(cls, annotation: Path) -> str:
        """The file's own name."""
        return annotation.stem

    @classmethod
    def video_folder(cls, annotation: Path) -> Path:
        """Where the meta file says, of several folders what they have in common.

        The meta file of ``held_out.jsonl`` is ``held_out.json``; without one, it is the file's own
        folder.
        """
        try:
            return (
                common_root(sources_of(annotation)) if annotation.is_file() else annotation.parent
            )
        except AnnotationError as error:
            raise SettingsError(f"--annotation: {error}") from None

    def queries(self) -> Iterator[Query]:
        """The first question of every item about a video."""
        try:
            found = read_own_file(self.settings.annotation)
        except AnnotationError as error:
            raise SettingsError(f"--annotation: {error}") from None
        if not found.items:
            reasons = "; ".join(found.warnings()) or "it has no line"
            raise SettingsError(
                f"--annotation {self.settings.annotation}: it holds nothing to ask ({reasons})"
            )
        for item in found.items:
            title = " ".join(item.question.replace("<video>", "").split())
            yield Query(item.id, item.video, item.question, item, title=title)

    def processor(self, processor: DisTimeProcessor) -> DisTimeProcessor:
        """Give the model the items' system message, where they have one of their own."""
        (system,) = {query.item.system for query in self.queries()}
        if system is not None:
            settings = replace(processor.settings, system_message=system)
            return type(processor)(processor.tokenizer, settings)
        return processor

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write `[{"id", "video", "question", "answer", "intervals"}]`, seconds.

        Only what was asked is in it; `answer` is null where the video could not be used.
        """
        path = out_dir / "results.json"
        write_json(
            path,
            [
                {
                    "id": query.id,
                    "video": query.video,
                    "question": query.question,
                    "answer": answer and answer.text,
                    "intervals": [[event.start, event.end] for event in answer.events]
                    if answer
                    else [],
                }
                for query, answer in answered
            ],
        )
        return path

    def truth(self, query: Query) -> list[Event]:
        """The item's own intervals, with what it says of each in captioning."""
        return true_events(query.item)

    def choice(self, query: Query, answer: Answer) -> Choice | None:
        """Which option was chosen."""
        if query.item.task != CHOICE:
            return None
        options = options_in(query.question)
        chosen = read_choice(answer.text, options)
        right = read_choice(query.item.answer, options)
        return Choice(query.item.answer, chosen == right, chosen is not None)

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
    ) -> Result:
        """Score what was asked, which is what the predictions hold, against the items' answers."""
        predictions = read_predictions(pred_path)
        try:
            found = read_own_file(gt_path)
        except AnnotationError as error:
            raise FileError(str(error)) from None
        asked = [item for item in found.items if item.id in predictions]
        expect(asked, str(pred_path), f"it answers nothing that {gt_path} asks.")
        for item in asked:
            expect(
                predictions[item.id]["question"] == item.question,
                f"{pred_path}, id {item.id}",
                f"it answers another question than {item.place} asks; give the file that was "
                "asked, or ask again.",
            )
        warnings = found.warnings()
        if only is not None:
            asked = [item for item in asked if item.id in only]
        left = len(found.items) - len(asked)
        if left and only is None:
            warnings.append(f"{len(asked)} of {len(found.items)} items were asked and are scored.")
        counts = {
            "items": len(asked),
            **({"left": left} if left else {}),
            "no_answer": sum(predictions[item.id]["answer"] is None for item in asked),
        }
        metrics: dict[str, float] = {}
        for task, scorer in SCORERS.items():
            pairs = [(one, predictions[one.id]) for one in asked if one.task == task]
            if pairs:
                counts[task] = len(pairs)
                scored, counted, said = scorer(pairs)
                metrics |= scored
                counts |= counted
                warnings += said
        return Result(cls.name, metrics, counts, warnings=tuple(warnings))


# -------------------------------------------------------------------------------------- items


def sources_of(path: Path) -> list[DataSource]:
    """The sources of a meta file (.json), or the one that a jsonl file is.

    That one has the root that a meta file of the same name gives it, or its own folder.

    Raises:
        AnnotationError: the meta file is wrong.
    """
    from distime.data.meta import DataSource, read_meta, scan_meta

    if path.suffix == ".json":
        return read_meta(path)
    beside = path.with_suffix(".json")
    described = scan_meta(beside) if beside.is_file() else ()  # it may be something else
    sources = [one for one in described if isinstance(one, DataSource)]
    roots = [one.root for one in sources if one.annotation.samefile(path)]
    return [DataSource("", *(roots[:1] or [path.parent]), path)]


def common_root(sources: Sequence[DataSource]) -> Path:
    """The folder that the roots of all sources have in common."""
    return Path(os.path.commonpath([_absolute(source.root) for source in sources]))


def _absolute(path: Path) -> Path:
    """Without `..`, but through symbolic links as they are: a linked video keeps its name."""
    return Path(os.path.normpath(path.absolute()))


def read_own_file(path: Path) -> OwnFile:
    """Read the items of a jsonl or meta file, each line once whatever `repeat_time` says.

    Raises:
        AnnotationError: a line is no item, or an answer does not fit the item's task; the message
            names file and line.
    """
    # The schema needs the prompt's rules and with them transformers, for which `--help` must not
    # wait.
    from distime.data.lines import JsonlIndex
    from distime.data.schema import parse_item

    sources, found = sources_of(path), OwnFile()
    root = common_root(sources)
    for source in sources:
        index = JsonlIndex(source.annotation)
        for number in np.unique(source.sample_indices(len(index))).tolist():
            record, line = index.record(number), index.line_number(number)
            item = parse_item(record, source, line)
            name = f"{source.name}:{line}" if source.name else str(line)
            _add(found, name, item, record.get("task"), root)
    return found


def _add(found: OwnFile, name: str, item: TrainingItem, task: Any, root: Path) -> None:
    turns = [turn for turn in item.turns if turn.speaker != "system"]
    question, answer = turns[0].text, turns[1].text
    system = next((turn.text for turn in item.turns if turn.speaker == "system"), None)
    if item.video is None:
        return found.leave("items without a video", item.place)
    if TIME_STAMP in question:
        return found.leave(f"questions that hold {TIME_STAMP}", item.place)
    task = task_of(question, answer, task, item.place)
    if task is None:
        reason = "items whose answers hold no time and are no option that the question lists"
        return found.leave(reason, item.place)
    if found.items and found.items[0].system != system:
        return found.leave("items whose system message is not the first one's", item.place)
    if len(turns) > 2:
        found.leave("conversations beyond their first question", item.place)
    video = _absolute(item.video)
    inside = video.is_relative_to(root)
    windows = item.targets[: answer.count(TIME_STAMP)]
    found.items.append(
        OwnItem(
            name, item.place, task,
            video.relative_to(root).as_posix() if inside else str(video),
            question, answer, tuple(windows), system,
        )
    )  # fmt: skip


def task_of(question: str, answer: str, named: Any, place: str) -> str | None:
    """What an answer is judged by; None where nothing fits.

    Raises:
        AnnotationError: the item names a task that there is not, or that its answer is not of.
    """
    stamps = answer.count(TIME_STAMP)
    chosen = read_choice(answer, options_in(question))
    if named is not None:
        if named not in TASKS:
            raise AnnotationError(
                f'{place}: "task" is {show(named)}: give one of {", ".join(TASKS)}, or leave it out'
            )
        if (chosen is None) if named == CHOICE else not stamps:
            needs = "an option of its question" if named == CHOICE else f"a {TIME_STAMP}"
            raise AnnotationError(f'{place}: "task" is "{named}", but the answer names not {needs}')
        return named
    if stamps:
        told = all(len(piece.split()) > 1 for piece in captions(answer))
        return CAPTIONING if told and answer.lstrip().startswith(TIME_STAMP) else GROUNDING
    return CHOICE if chosen is not None and options_in(question).texts else None


def true_events(item: OwnItem) -> list[Event]:
    """The item's intervals in seconds, in captioning with their words."""
    if item.task != CAPTIONING:
        return [Event(*window) for window in item.windows]
    pairs = zip(item.windows, captions(item.answer), strict=True)
    return [Event(*window, text=words) for window, words in pairs]


# -------------------------------------------------------------------------------------- scores

Pairs = Sequence[tuple[OwnItem, Mapping[str, Any]]]
"""Items with what was answered to them."""
Scored = tuple[dict[str, float], dict[str, int], list[str]]
"""Metrics in percent, counts and warnings."""


def score_grounding(pairs: Pairs) -> Scored:
    """Score times against true intervals."""
    best, sets = [], {"set_mIoU": [], **{f"set_F1@{t}": [] for t in THRESHOLDS}}
    for item, said in pairs:
        first = said["intervals"][0] if said["intervals"] else NO_ANSWER
        best.append((first, max(item.windows, key=lambda window: iou(first, window))))
        sets["set_mIoU"].append(set_iou(said["intervals"], item.windows))
        for t in THRESHOLDS:
            sets[f"set_F1@{t}"].append(matched_f1(said["intervals"], item.windows, t))
    metrics = retrieval(best) | {name: percent(values) for name, values in sets.items()}
    metrics["set_F1"] = sum(metrics[f"set_F1@{t}"] for t in THRESHOLDS) / len(THRESHOLDS)
    counts = {
        "without_time": sum(not said["intervals"] for _, said in pairs),
        "reversed": sum(start > end for _, said in pairs for start, end in said["intervals"]),
        "several_true_intervals": sum(len(item.windows) > 1 for item, _ in pairs),
        "several_times": sum(len(said["intervals"]) > 1 for _, said in pairs),
    }
    return metrics, counts, []


def score_captioning(pairs: Pairs) -> Scored:
    """Score captioned times; without Java the times alone."""
    both = [(_said(said), true_events(item)) for item, said in pairs]
    words = sorted({event.text for pair in both for part in pair for event in part})
    has_java = shutil.which("java") is not None
    tokens = ptb.tokenize(words) if has_java else {word: word for word in words}
    videos = [CaptionedVideo(_events(said, tokens), _events(true, tokens)) for said, true in both]
    counts = {
        "captions": sum(map(len, (said for said, _ in both))),
        "true_captions": sum(map(len, (true for _, true in both))),
    }
    if has_java:
        with Aligner(list(tokens.values())) as aligner:
            aligner.request([*needed_pairs(videos)])
            metrics, warnings = captioning_metrics(videos, aligner), []
    else:
        metrics = localisation_metrics(videos)
        warnings = ["SODA_c, CIDEr and METEOR need Java, and there is none: install a runtime."]
    own = ("SODA_c", "CIDEr", "METEOR")
    named = {n if n in own else f"caption_{n}": value for n, value in metrics.items()}
    return named, counts, warnings


def _said(row: Mapping[str, Any]) -> list[Event]:
    """The captioned times of an answer; a time without words describes nothing."""
    pieces = captions(row["answer"] or "")
    events = [
        Event(*window, text=piece)
        for window, piece in zip(row["intervals"], pieces, strict=False)
        if piece
    ]
    return [event.ordered for event in events]


def _events(part: Sequence[Event], tokens: Mapping[str, str]) -> TimedCaptions:
    windows = np.array([(event.start, event.end) for event in part], dtype=np.float64)
    return TimedCaptions(windows.reshape(-1, 2), [tokens[event.text] for event in part])


def score_choices(pairs: Pairs) -> Scored:
    """Score multiple choice."""
    right, unread = [], []
    for item, said in pairs:
        options = options_in(item.question)
        chosen = read_choice(said["answer"] or "", options)
        if chosen is None:
            unread.append(said["answer"] or "")
        right.append(chosen is not None and chosen == read_choice(item.answer, options))
    counts = {"unread": len(unread)}
    return {"Accuracy": percent(right)}, counts, unread_warning(unread, len(pairs))


SCORERS = {GROUNDING: score_grounding, CAPTIONING: score_captioning, CHOICE: score_choices}


def read_predictions(path: Path) -> dict[str, dict[str, Any]]:
    """Read what `OwnData.write` wrote, by id.

    Raises:
        FileError: the file is not of this form, or has an id twice.
    """
    rows, _ = read_json(path, "results.json")
    expect(isinstance(rows, list) and rows, str(path), FORM)
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        place = f"{path}, row {number}"
        fields = {"id", "question", "answer", "intervals"}
        expect(isinstance(row, dict) and fields <= row.keys(), place, FORM)
        expect(isinstance(row["answer"], str | None), place, '"answer" is no text.')
        expect(isinstance(row["intervals"], list), place, '"intervals" is no list.')
        expect(row["id"] not in found, place, f"the id {row['id']!r} is there twice.")
        found[row["id"]] = row | {"intervals": [interval(one, place) for one in row["intervals"]]}
    return found
