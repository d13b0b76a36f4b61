"""ActivityNet-Captions dense captioning: SODA_c, METEOR, CIDEr (percent), and a grounding task.

The definitions of dense_captioning.py over JSON-lines logs. Evaluation writes whole seconds; the
published scorer reads them as percent of the duration, which moves most events of videos longer
than 100 s. Seconds are the headline here, and the published values are named
``..._seconds_as_percent``. A video without a line counts 0; the published scorer drops it.

Consecutive events with nearly the same caption and at most one unit between them are merged
first, as the published scorer does: models repeat themselves, and SODA would punish each repeat.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distime.benchmarks import anet
from distime.benchmarks.base import (
    Answered,
    Benchmark,
    Query,
    ScoreOption,
    captioned_events,
    restricted,
)
from distime.benchmarks.result import Result
from distime.files import FileError, json_lines, read_text, write_text
from distime.metrics import ptb
from distime.metrics.dense_captioning import (
    THRESHOLDS,
    CaptionedVideo,
    TimedCaptions,
    bleu_and_rouge,
    calls_one_by_one,
    caption_scores,
    f1,
    localisation,
    needed_pairs,
    soda_c,
)
from distime.metrics.intervals import Interval, iou
from distime.metrics.meteor import Aligner
from distime.processing.answers import Event
from distime.processing.questions import EVENT_CAPTIONING
from distime.values import expect, expect_readable, interval, is_number

TimeUnit = Literal["seconds", "percent"]
Task = Literal["captioning", "grounding"]

MERGE_SIMILARITY = 0.98
GROUNDING_THRESHOLDS = (0.3, 0.5, 0.7)


class AnetDVC(Benchmark):
    """One question for every video."""

    name = "anet_dvc"
    annotation = "anet/val_2.json"
    videos = "anet"
    title = "ANet-Caption-DVC"
    rank = 5
    predictions = ("results.txt",)
    score_options = {
        "time_unit": ScoreOption(
            ("seconds", "percent"),
            "what the timestamps of a log without a unit are (default: seconds)",
        ),
        "task": ScoreOption(
            ("captioning", "grounding"), "lines of the log to score (default: captioning)"
        ),
    }
    headline = ("SODA_c", "METEOR", "CIDEr")
    released = {"SODA_c": 6.20, "METEOR": 5.52, "CIDEr": 22.11}
    released_8b = {"SODA_c": 5.84, "METEOR": 7.31, "CIDEr": 25.54}

    def queries(self) -> Iterator[Query]:
        """One query per video of `val_2.json`."""
        try:
            for video, item in self.read_annotation().items():
                yield Query(video, video, EVENT_CAPTIONING, item)
        except (TypeError, AttributeError) as error:
            raise self.misfit(error) from None

    def write(self, answered: Answered, out_dir: Path) -> Path:
        """Write JSON lines `{"video_id", "task", "time_unit", "answer"}`.

        `answer` is itself JSON: `[{"event", "timestamps": "S - E"}]`. The published file has whole
        seconds there, which its metric takes for percent; ours has seconds with all their digits
        and says so.
        """
        lines = []
        for query, answer in answered:
            if answer is not None:
                events = [
                    {"event": event.text, "timestamps": f"{event.start:.6f} - {event.end:.6f}"}
                    for event in captioned_events(answer)
                ]
                line = {"video_id": query.video, "task": "captioning", "time_unit": "seconds"}
                lines.append(line | {"answer": json.dumps(events)})
        path = out_dir / "results.txt"
        write_text(path, json_lines(lines))
        return path

    def truth(self, query: Query) -> list[Event]:
        """The annotated events."""
        pairs = zip(query.item["timestamps"], query.item["sentences"], strict=False)
        return [Event(*window, text=sentence.strip()) for window, sentence in pairs]

    @classmethod
    def score(
        cls,
        pred_path: Path,
        gt_path: Path,
        *,
        published: bool = False,
        only: Collection[Hashable] | None = None,
        time_unit: TimeUnit = "seconds",
        task: Task = "captioning",
    ) -> Result:
        """Score an ActivityNet log (``results.txt``) against ``val_2.json``.

        Args:
            pred_path: the log.
            gt_path: the annotation.
            published: also compute what the published scorer gives.
            time_unit: unit of the lines that have no ``time_unit`` of their own.
            task: which lines to score.
        """
        log = read_log(pred_path, time_unit)
        annotations = restricted(anet.read_ground_truth(gt_path), only)
        if task == "grounding":
            return score_grounding(log, annotations, str(pred_path))
        expect(
            not log.answers or log.answers.keys() & annotations.keys(),
            str(pred_path),
            f"none of its {len(log.answers)} videos is in {gt_path}; is this another split?",
        )
        form = '{"video_id", "answer": [{"event", "timestamps": "S - E"}]}'
        warnings = expect_readable(log.unreadable, log.lines, str(pred_path), form)
        result = evaluate(log, annotations, published=published)
        return replace(result, warnings=(*warnings, *result.warnings))


@dataclass
class Narration:
    """The events of one log line, in the log's unit."""

    windows: list[Interval]
    captions: list[str]
    unit: TimeUnit


@dataclass
class Log:
    """What a log holds: dense captions by video, grounding lines, and counts of bad lines."""

    answers: dict[str, Narration] = field(default_factory=dict)
    grounding: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("duplicates", "bad_lines", "bad_answers"), 0)
    )
    lines: int = 0
    unreadable: list[str] = field(default_factory=list, compare=False)
    """Where the bad lines and answers stand."""


def evaluate(
    log: Log, annotations: Mapping[str, anet.AnnotatedVideo], *, published: bool = False
) -> Result:
    """Score a log that is already in memory.

    Raises:
        FileError: there is no video to score, or Java fails.
    """
    expect(annotations, "ground truth", "it holds no video.")
    merged = {name: merge_repeats(answer) for name, answer in log.answers.items()}
    tokens = ptb.tokenize(
        _ascii(text)
        for group in (*merged.values(), *annotations.values())
        for text in (group.captions if isinstance(group, Narration) else group.sentences)
    )
    unknown = merged.keys() - annotations.keys()
    videos = _videos(merged, annotations, tokens, as_percent=False)
    as_run_videos: list[CaptionedVideo] = []
    warnings = []
    if published and unknown:
        warnings.append(
            "no published-as-run values: the published scorer stops (KeyError) at a video that "
            f"is not annotated, such as {min(unknown)}."
        )
    elif published and merged:
        present = {name: video for name, video in annotations.items() if name in merged}
        as_run_videos = _videos(merged, present, tokens, as_percent=True)
    as_run: dict[str, float] = {}
    with Aligner(tokens.values()) as aligner:
        aligner.request([*needed_pairs(videos), *needed_pairs(as_run_videos)])
        metrics = _metrics(videos, aligner)
        if as_run_videos:
            as_run = _metrics(as_run_videos, aligner)
            others = bleu_and_rouge(as_run_videos)
            as_run |= {name: 100 * value for name, value in others.items()}
        alignments = aligner.alignments
    if as_run:
        in_seconds = any(answer.unit == "seconds" for answer in merged.values())
        suffix = "_seconds_as_percent" if in_seconds else "_of_answered_videos"
        as_run = {f"{name}{suffix}": value for name, value in as_run.items()}
    windows = [window for answer in merged.values() for window in answer.windows]
    counts = {
        "videos": len(annotations),
        "missing": len(annotations.keys() - merged.keys()),
        "without_events": sum(not answer.windows for answer in merged.values()),
        "unknown": len(unknown),
        "events": sum(len(answer.windows) for answer in log.answers.values()),
        "events_after_merging": len(windows),
        "reversed": sum(start > end for start, end in windows),
        "out_of_range": sum(
            # Whole seconds may round up to one beyond the end.
            int(
                ((video.predicted.windows < 0) | (video.predicted.windows > last)).any(axis=1).sum()
            )
            for video, last in zip(
                videos, (video.duration + 1 for video in annotations.values()), strict=True
            )
        ),
        **log.counts,
        "meteor_alignments": alignments,
        "meteor_calls_one_by_one": calls_one_by_one(as_run_videos or videos),
    }
    return Result("anet_dvc", metrics, counts, as_run, tuple(warnings))


def _metrics(videos: Sequence[CaptionedVideo], aligner: Aligner) -> dict[str, float]:
    meteors, ciders = caption_scores(videos, aligner)
    precision, recall = (
        np.array(part).mean(axis=0)
        for part in zip(*(localisation(video.ious) for video in videos), strict=True)
    )
    f1s = [f1(p, r) for p, r in zip(precision, recall, strict=True)]
    metrics = {
        "SODA_c": 100 * float(soda_c(videos, aligner).mean()),
        "METEOR": 100 * float(meteors.mean()),
        "CIDEr": 100 * float(ciders.mean()),
        "F1": 100 * float(np.mean(f1s)),
        "Precision": 100 * float(precision.mean()),
        "Recall": 100 * float(recall.mean()),
    }
    for name, values in (("F1", f1s), ("Precision", precision), ("Recall", recall)):
        metrics |= {f"{name}@{t}": 100 * float(v) for t, v in zip(THRESHOLDS, values, strict=True)}
    return metrics


def _videos(
    answers: Mapping[str, Narration],
    annotations: Mapping[str, anet.AnnotatedVideo],
    tokens: Mapping[str, str],
    *,
    as_percent: bool,
) -> list[CaptionedVideo]:
    """Pair up events in seconds, sorted by start, in the order of the annotations."""
    videos = []
    for name, annotated in annotations.items():
        answer = answers.get(name, Narration([], [], "seconds"))
        windows = np.array(answer.windows, dtype=np.float64).reshape(-1, 2)
        if as_percent or answer.unit == "percent":
            # Percent are the whole numbers 0..99, each of which stands for a hundredth.
            windows = (windows + [0, 1]) * annotated.duration / 100
        videos.append(
            CaptionedVideo(
                _sorted(windows, answer.captions, tokens),
                _sorted(
                    np.array(annotated.windows, dtype=np.float64).reshape(-1, 2),
                    annotated.sentences,
                    tokens,
                ),
            )
        )
    return videos


def _sorted(
    windows: np.ndarray, captions: Sequence[str], tokens: Mapping[str, str]
) -> TimedCaptions:
    order = np.argsort(windows[:, 0], kind="stable")
    return TimedCaptions(windows[order], [tokens[_ascii(captions[i])] for i in order])


def _ascii(text: str) -> str:
    return re.sub(r"[^\x00-\x7f]", " ", text)


def merge_repeats(answer: Narration) -> Narration:
    """Merge consecutive events that repeat one another.

    Their captions are more than 98 % alike and the second starts at most one unit before or
    after the end of the first, which then takes over the end of the second.
    """
    windows: list[Interval] = []
    captions: list[str] = []
    for window, caption in zip(answer.windows, answer.captions, strict=True):
        if windows and -1 <= window[0] - windows[-1][1] <= 1 and _alike(captions[-1], caption):
            windows[-1] = (windows[-1][0], window[1])
        else:
            windows.append(window)
            captions.append(caption)
    return Narration(windows, captions, answer.unit)


def _alike(a: str, b: str) -> bool:
    if a == b:
        return True
    matcher = difflib.SequenceMatcher(None, a, b)
    # The quick ratios are upper bounds and spare most of the slow comparisons.
    return (
        matcher.real_quick_ratio() > MERGE_SIMILARITY
        and matcher.quick_ratio() > MERGE_SIMILARITY
        and matcher.ratio() > MERGE_SIMILARITY
    )


def read_log(path: Path, time_unit: TimeUnit = "seconds") -> Log:
    """Read JSON lines ``{"video_id", "task", "answer": "[{\\"event\\", \\"timestamps\\"}]"}``.

    ``answer`` is a JSON string or a list, ``timestamps`` reads ``"S - E"``. A line may name its
    ``time_unit``. The last line of a video counts. Lines that are not JSON are skipped, and of an
    answer that cannot be read the events before the bad one are kept; both are counted.

    Raises:
        FileError: the file is missing, or no line of it is of this form.
    """
    log = Log()
    text = read_text(path, "ActivityNet log (results.txt)")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        log.lines += 1
        try:
            row = json.loads(line)
            video, answer = str(row["video_id"]), row["answer"]
        except (ValueError, TypeError, KeyError):
            log.counts["bad_lines"] += 1
            log.unreadable.append(f"line {number} {line[:60]!r}")
            continue
        if row.get("task", "captioning") == "grounding":
            log.grounding.append({"time_unit": time_unit, **row})
            continue
        unit = row.get("time_unit", time_unit)
        expect(
            unit in ("seconds", "percent"),
            f"{path}, line {number}",
            f"time_unit {unit!r} is neither seconds nor percent.",
        )
        windows, captions, clean = _read_answer(answer)
        if not clean:
            log.counts["bad_answers"] += 1
            log.unreadable.append(f"line {number} ({video}) {str(answer)[-60:]!r}")
        log.counts["duplicates"] += video in log.answers
        log.answers[video] = Narration(windows, captions, unit)
    expect(
        log.answers or log.grounding or not log.counts["bad_lines"],
        str(path),
        'no line is {"video_id": ..., "answer": ...}; is this another benchmark\'s file?',
    )
    return log


def _read_answer(answer: Any) -> tuple[list[Interval], list[str], bool]:
    windows: list[Interval] = []
    captions: list[str] = []
    try:
        for event in json.loads(answer) if isinstance(answer, str) else answer:
            caption, times = event["event"], event["timestamps"]
            if isinstance(times, str):
                times = re.split(r"(?<=[\d.)s])\s*(?:-|–|to\b)\s*", times.strip())
                times = [re.sub(r"\s*s(?:ec(?:ond)?s?)?\.?$", "", time) for time in times]
            window = interval(times, "")
            if not isinstance(caption, str):
                return windows, captions, False
            windows.append((float(window[0]), float(window[1])))
            captions.append(caption)
    except (ValueError, TypeError, KeyError):
        return windows, captions, False
    return windows, captions, True


def score_grounding(log: Log, annotations: Mapping[str, anet.AnnotatedVideo], place: str) -> Result:
    """Score the lines of task ``grounding``: mIoU and R1 over these lines.

    A line names its sentence in ``info.sentence_id`` and answers with two numbers
    (``"12 - 40"``, ``"from 12 to 40"``); a line that carries ``info.iou`` is taken at its word.

    Raises:
        FileError: there is no such line, or one names no annotated sentence.
    """
    expect(log.grounding, place, "it has no line of task `grounding`.")
    ious, bad_answers = [], 0
    for row in log.grounding:
        info = row.get("info") or {}
        if is_number(info.get("iou")):
            ious.append(float(info["iou"]))
            continue
        video, index = row["video_id"], info.get("sentence_id")
        if video not in annotations or index not in range(len(annotations[video].windows)):
            raise FileError(
                f"{place}, {video}: no annotated sentence {index!r}; set info.sentence_id."
            )
        times = re.findall(r"\d+(?:\.\d+)?", str(row["answer"]))
        if len(times) != 2:
            bad_answers += 1
            ious.append(0.0)
            continue
        scale = annotations[video].duration / 100 if row["time_unit"] == "percent" else 1
        window = (float(times[0]) * scale, float(times[1]) * scale)
        ious.append(iou(window, annotations[video].windows[index]))
    metrics = {
        f"R1@{t}": 100 * sum(value >= t for value in ious) / len(ious) for t in GROUNDING_THRESHOLDS
    }
    metrics["mIoU"] = 100 * sum(ious) / len(ious)
    counts = {"queries": len(ious), "bad_answers": bad_answers}
    return Result("anet_dvc", metrics, {**log.counts, **counts})
