"""A page about one run: metrics, how good its times are, whether it knows, and what they look like.

The page is one HTML file that fetches nothing: charts are inline SVG, pictures are data addresses,
and every word that comes from an annotation or a model is escaped.
"""

from __future__ import annotations

import base64
import html
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from distime.benchmarks import find
from distime.benchmarks.base import Answered, Benchmark, Query
from distime.benchmarks.result import Result
from distime.evaluate.answering import Task
from distime.evaluate.settings import Settings
from distime.files import write_text
from distime.metrics.intervals import iou
from distime.processing.answers import Answer, Event
from distime.processing.sampling import sample_video
from distime.processing.video import VideoError
from distime.show.calibration import calibration_bins, rank_correlation
from distime.show.charts import bar_chart
from distime.show.timeline import timeline_svg

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto }}
figure {{ margin: 2rem 0; border-top: 1px solid #ccc; padding-top: 1rem }}
img {{ max-width: 100%; height: auto }}
figcaption, td {{ overflow-wrap: anywhere }}
code {{ white-space: pre-wrap }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ padding: 0.15rem 0.8rem; border-bottom: 1px solid #ddd; text-align: left }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums }}
svg.chart {{ max-width: 48rem; width: 100% }}
.note {{ color: #666 }}
</style>
<h1>{title}</h1>
{body}
</html>
"""

_FIGURE = """<figure id="{anchor}">
<figcaption><a href="#{anchor}">{place}</a>: <b>{video}</b>, {fit}<br>{words}<br>
<code>{answer}</code></figcaption>
{picture}
</figure>"""


@dataclass(frozen=True)
class FinishedRun:
    """What is known of a run when all is answered.

    Attributes:
        settings: of the run.
        benchmark: that it was about.
        tasks: say where the videos are.
        answered: every query with its answer.
        description: what `run.json` holds.
        score: the metrics, where there are any.
    """

    settings: Settings
    benchmark: Benchmark
    tasks: Sequence[Task]
    answered: Answered
    description: Mapping[str, Any] = field(default_factory=dict)
    score: Result | None = None


class Sample(NamedTuple):
    """An answered query that has a known truth; `fit` is between 0 and 1.

    `truth` holds the true events, `expected` the right option of a multiple choice, and `is_read`
    whether the answer names an option.
    """

    fit: float
    query: Query
    answer: Answer
    truth: list[Event]
    expected: str = ""
    is_read: bool = True


# ------------------------------------------------------------------------------------- pages


def write_report(path: Path, run: FinishedRun, examples: int, pictures: Path | None = None) -> None:
    """Write the page of a run.

    Args:
        path: of the HTML file; it appears only when it is complete.
        run: what it is about.
        examples: how many of the worst (wrong) and how many of the best (right) samples to show.
        pictures: folder to keep the pictures in as well, as PNG files.
    """
    known = samples(run)
    body = [facts_html(run.description), metrics_html(run.score, run.benchmark.name)]
    if not known:
        body.append(note("No answered query has a known truth: there is nothing to compare."))
    kinds = by_kind(known)
    for kind, some in kinds.items():
        if len(kinds) > 1:
            body.append(f"<h2>{kind.capitalize()}</h2>")
        if some[0].expected:
            body.append(choices_html(some))
        else:
            body += [quality_html(some), calibration_html(some)]
    for kind, some in kinds.items() or [("", [])]:
        prefix = f"{kind}-".replace(" ", "-") if len(kinds) > 1 else ""
        body.append(examples_html(run, some, examples, pictures, prefix))
    write_page(path, f"{run.benchmark.title}, {run.settings.checkpoint_name}", body)


def write_page(path: Path, title: str, body: Iterable[str]) -> None:
    """Write an HTML file with a title (plain text) above a body (HTML)."""
    write_text(path, _PAGE.format(title=html.escape(title), body="\n".join(filter(None, body))))


def samples(run: FinishedRun) -> list[Sample]:
    """The answered queries whose truth is known, the worst first."""
    known = []
    for query, answer in run.answered:
        if answer is None:
            continue
        if choice := run.benchmark.choice(query, answer):
            known.append(
                Sample(float(choice.is_right), query, answer, [], choice.expected, choice.is_read)
            )
        elif truth := run.benchmark.truth(query):
            known.append(Sample(fit(answer.events, truth), query, answer, truth))
    return sorted(known, key=lambda sample: sample.fit)


def by_kind(known: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by what they are judged by, in an order of their own; the worst first in each."""
    kinds: dict[str, list[Sample]] = {"times": [], "captions": [], "choices": []}
    for sample in known:
        kind = (
            "choices"
            if sample.expected
            else "captions"
            if _is_captioning(sample.truth)
            else "times"
        )
        kinds[kind].append(sample)
    return {kind: some for kind, some in kinds.items() if some}


def fit(events: Sequence[Event], truth: Sequence[Event]) -> float:
    """How well events match the true ones, 0 to 1.

    With words (dense captioning) the mean over the true events of the best IoU that any event has
    with them; without (moment retrieval) the best IoU of the first event, the one that counts.
    """
    if not _is_captioning(truth):
        return max((_best(event, truth) for event in events[:1]), default=0.0)
    return sum(_best(true, events) for true in truth) / len(truth)


def _best(event: Event, others: Sequence[Event]) -> float:
    overlaps = (iou((event.start, event.end), (other.start, other.end)) for other in others)
    return max(overlaps, default=0.0)


def _is_captioning(truth: Sequence[Event]) -> bool:
    return any(event.text for event in truth)


# ---------------------------------------------------------------------------------- sections


def facts_html(description: Mapping[str, Any]) -> str:
    """What `run.json` says, in a table: counts, settings, versions, time."""
    settings = description.get("settings", {})
    frames = ("num_segments", "fps", "max_frames", "max_video_tokens", "image_size")
    asked = ("checkpoint", *frames, "dtype", "quantize", "limit")
    rows = {name.replace("_", " "): str(n) for name, n in description.get("counts", {}).items()}
    rows |= {name: str(settings[name]) for name in asked if settings.get(name) is not None}
    versions = description.get("versions", {})
    shown = ("distime", "torch", "transformers", "gpu")
    rows["versions"] = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    parts = [table_html([[name, value] for name, value in rows.items() if value != ""])]
    if warnings := description.get("warnings", []):
        parts.append("<h2>Videos with something wrong</h2>")
        parts.append(table_html([[one["video"], one["reason"]] for one in warnings]))
    failures = description.get("failures", [])
    if failures:
        parts.append("<h2>Videos that could not be used</h2>")
        parts.append(table_html([[one["video"], one["reason"]] for one in failures]))
    return "\n".join(parts)


def metrics_html(score: Result | None, benchmark: str) -> str:
    """The metrics in percent, beside those of the published predictions, 1B and 8B."""
    if score is None:
        return note(
            "No metrics: there is no score.json of this run. The command that answered the "
            "queries writes it unless --no-score was given."
        )
    published = find(benchmark).published_models()
    rows = [[name, value] for name, value in score.metrics.items()]
    header = ["percent", "this run"]
    for size, values in published.items():
        rows = [[*row, values.get(row[0], "")] for row in rows]
        header.append(f"published {size} predictions")
    parts = ["<h2>Metrics</h2>", table_html(rows, header)]
    if published:
        words = "The published ones answer the official queries; compare only such runs."
        parts.append(note(words))
    if score.published_as_run:
        rows = [[name, value] for name, value in score.published_as_run.items()]
        parts.append(table_html(rows, ["as the published scorer computes it", "this run"]))
    parts.append(table_html([[name, count] for name, count in score.counts.items()]))
    parts += [note(f"Note: {warning}") for warning in score.warnings]
    return "\n".join(parts)


def choices_html(known: Sequence[Sample]) -> str:
    """How many answers to multiple choice are right."""
    right = sum(sample.fit for sample in known)
    unread = sum(not sample.is_read for sample in known)
    return (
        f"<p>{right:.0f} of {len(known)} answers name the right option; {unread} name no "
        "option, or several, and count as wrong.</p>"
    )


def quality_html(known: Sequence[Sample], bins: int = 20) -> str:
    """A histogram of the fits, and what it cannot show."""
    fits = np.array([sample.fit for sample in known])
    counts, edges = np.histogram(fits, bins=bins, range=(0, 1))
    captioning = _is_captioning(known[0].truth)
    what = (
        "Of each video: the mean over its true events of the best IoU that an answer has with them."
        if captioning
        else "IoU of the first time of each answer with the true interval that fits it best."
    )
    chart = bar_chart(
        counts.tolist(),
        [f"{edge:.1f}" if number % 2 == 0 else "" for number, edge in enumerate(edges[:-1])],
        title="Histogram of the IoU",
        axis="IoU (each bar begins at its number)",
        notes=[str(count) if count else "" for count in counts.tolist()],
    )
    nothing = sum(not sample.answer.events for sample in known)
    return (
        f"<h2>How good the times are</h2>\n<p>{what} Mean {fits.mean():.3f}, median "
        f"{np.median(fits):.3f}; {(fits == 0).sum()} of {len(fits)} do not overlap at all, "
        f"{nothing} of these because the answer names no time.</p>\n{chart}"
    )


def calibration_html(known: Sequence[Sample]) -> str:
    """Confidence against IoU: bins, and their rank correlation in words."""
    pairs = [
        (event.confidence, _best(event, sample.truth))
        for sample in known
        for event in (sample.answer.events if _is_captioning(sample.truth) else
                      sample.answer.events[:1])
        if math.isfinite(event.confidence)
    ]  # fmt: skip
    heading = "<h2>Does it know?</h2>\n"
    if not pairs:
        return heading + note("The answers hold no confidence, so there is nothing to compare.")
    confidence, overlap = zip(*pairs, strict=True)
    explained = (
        f"{heading}<p>The confidence of a time is the IoU that it expects by its own two "
        f"distributions. On average it expects {np.mean(confidence):.3f} and has "
        f"{np.mean(overlap):.3f}. {verdict(confidence, overlap)}</p>\n"
    )
    bins = calibration_bins(confidence, overlap)
    if len(bins) < 2:
        return explained + note(f"{len(pairs)} times are too few to compare sure and unsure ones.")
    chart = bar_chart(
        [one.mean_iou for one in bins],
        [f"{one.low:.2f}–{one.high:.2f}" for one in bins],
        title="Mean IoU by confidence",
        axis=f"confidence ({len(bins)} bins of equal count)",
        notes=[f"{one.mean_iou:.2f}" for one in bins],
        top=1,
    )
    rows = [
        [
            f"{one.low:.3f} – {one.high:.3f}",
            one.count,
            100 * one.mean_confidence,
            100 * one.mean_iou,
            100 * one.hits,
        ]
        for one in bins
    ]
    table = table_html(
        rows, ["confidence", "times", "expected IoU (%)", "mean IoU (%)", "IoU ≥ 0.5 (%)"]
    )
    return f"{explained}{chart}\n{table}"


def verdict(confidence: Sequence[float], overlap: Sequence[float]) -> str:
    """Say in a sentence whether surer times are better ones."""
    count, rho = len(confidence), rank_correlation(confidence, overlap)
    if math.isnan(rho):
        return f"The {count} times do not differ enough for a rank correlation."
    error = 1 / math.sqrt(count - 1)
    measured = (
        f"Spearman's rank correlation of confidence and IoU is {rho:+.2f} over {count} times"
        f" (±{2 * error:.2f} is what chance does):"
    )
    if abs(rho) <= 2 * error:
        return f"{measured} no relation is seen."
    return f"{measured} surer times are {'better' if rho > 0 else 'worse'} ones."


def examples_html(
    run: FinishedRun,
    known: Sequence[Sample],
    examples: int,
    pictures: Path | None,
    prefix: str = "",
) -> str:
    """The worst and the best samples, with pictures where answers name times.

    `prefix` tells the anchors of several kinds apart.
    """
    if not known:
        answered = [(query, answer) for query, answer in run.answered if answer is not None]
        known = [Sample(math.nan, query, answer, []) for query, answer in answered]
    chosen = [
        (f"{prefix}{name}-{number}", sample)
        for name, some in chosen_samples(known, examples).items()
        for number, sample in enumerate(some, 1)
    ]
    if not chosen:
        return ""
    paths = {task.video: task.path for task in run.tasks}
    figures = []
    with tempfile.TemporaryDirectory(prefix="distime-report-") as temporary:
        folder = pictures or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for anchor, sample in chosen:
            values = {
                "anchor": anchor,
                "place": anchor.replace("-", " "),
                "video": sample.query.video,
                "fit": _fit_words(sample),
                "words": sample.query.title or sample.query.question,
                "answer": sample.answer.readable or "(no words)",
            }
            values = {name: html.escape(text) for name, text in values.items()}
            picture = _picture_html(folder / f"{anchor}.png", run, sample, paths)
            figures.append(_FIGURE.format(**values, picture=picture))
    return "\n".join(["<h2>Examples</h2>", *figures])


def chosen_samples(known: Sequence[Sample], count: int) -> dict[str, list[Sample]]:
    """Choose samples worth a look, each at most once, and say what they are.

    Args:
        known: samples, the worst first.
        count: of each kind, at most.

    Returns:
        of multiple choice the wrong and the right ones. Of times the worst, and the best from the
        best one down; where all fit equally well, or nothing is known of it, there are neither.
    """
    if known and known[0].expected:
        groups = {
            "wrong": [sample for sample in known if not sample.fit],
            "right": [sample for sample in known if sample.fit],
        }
    elif known and known[0].fit < known[-1].fit:
        half = (len(known) + 1) // 2
        lowest, highest = known[0].fit, known[-1].fit
        groups = {
            "worst": [sample for sample in known[:half] if sample.fit < highest],
            "best": [sample for sample in reversed(known[half:]) if sample.fit > lowest],
        }
    else:
        groups = {"answer": list(known)}
    return {name: some[:count] for name, some in groups.items()}


def _fit_words(sample: Sample) -> str:
    if sample.expected:
        said = "right" if sample.fit else "wrong" if sample.is_read else "names no option"
        return f"{said}: expected {sample.expected}"
    return "the truth is not known" if math.isnan(sample.fit) else f"IoU {sample.fit:.3f}"


def _picture_html(path: Path, run: FinishedRun, sample: Sample, paths: Mapping[str, Path]) -> str:
    """Frames with answer and truth; without the video, the two as timelines."""
    if sample.expected or not (sample.answer.events or sample.truth):
        return ""
    try:
        _draw(path, run, sample, paths[sample.query.video])
    except VideoError as error:
        lines = [("predicted", sample.answer.events), ("true", sample.truth)]
        drawn = [
            f"<p>{name}</p>{timeline_svg(events, sample.answer.duration)}"
            for name, events in lines
            if events and sample.answer.duration > 0
        ]
        return "\n".join([note(f"No frames: {error}"), *drawn])
    content = base64.b64encode(path.read_bytes()).decode()
    words = html.escape(sample.query.title or sample.query.question)
    return f'<img src="data:image/png;base64,{content}" alt="{words}" loading="lazy">'


def _draw(path: Path, run: FinishedRun, sample: Sample, video: Path) -> None:
    from distime.show.plots import plot_events, plot_grounding

    shown = sample_video(
        video,
        # Where frames went by the second there may be hundreds, of which a picture shows a few.
        run.settings.num_segments or run.benchmark.num_segments,
        rule=run.benchmark.rule,
        bound=sample.query.bound,
        gif_fps=run.benchmark.gif_fps,
    )
    frames = {"frames": shown.frames, "frame_times": shown.times, "duration": shown.duration}
    events, truth, query = sample.answer.events, sample.truth, sample.query
    if _is_captioning(truth or events):
        plot_events(path, **frames, title=query.video, events=events, truth=truth)
    else:
        windows = [(event.start, event.end) for event in truth]
        words = query.title or query.question
        plot_grounding(path, **frames, query=words, events=events, truth=windows)


class Link(NamedTuple):
    """A cell of a table that leads to another page."""

    href: str
    text: str


def table_html(rows: Sequence[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """A table; numbers stand on the right, those with a fraction with two digits of it."""
    if not rows:
        return ""

    def cell(value: Any, tag: str = "td") -> str:
        is_number = isinstance(value, int | float)
        kind = ' class="number"' if is_number else ""
        if isinstance(value, Link):
            address = html.escape(quote(value.href))
            return f'<{tag}><a href="{address}">{html.escape(value.text)}</a></{tag}>'
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    lines = ["".join(map(cell, row)) for row in rows]
    if header:
        lines.insert(0, "".join(cell(name, "th") for name in header))
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def note(text: str) -> str:
    """A remark in plain text."""
    return f'<p class="note">{html.escape(text)}</p>'
