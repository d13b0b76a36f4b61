"""Pictures of the worst and the best samples of a run, and one page that holds them all."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distime.evaluate.answering import Task
from distime.evaluate.benchmark import Answered, Benchmark, Query
from distime.evaluate.settings import Settings
from distime.metrics.files import write_text
from distime.metrics.intervals import iou
from distime.processing.answers import Answer, Event
from distime.processing.sampling import sample_video

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto }}
figure {{ margin: 2rem 0; border-top: 1px solid #ccc; padding-top: 1rem }}
img {{ max-width: 100%; height: auto }}
figcaption {{ overflow-wrap: anywhere }}
code {{ white-space: pre-wrap }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
{figures}
</html>
"""

_FIGURE = """<figure id="{anchor}">
<figcaption><a href="#{anchor}">{place}</a>: <b>{video}</b>, {fit}<br>{words}<br>
<code>{answer}</code></figcaption>
<img src="{picture}" alt="{words}" loading="lazy">
</figure>"""


class Sample(NamedTuple):
    """An answered query that has a known truth; `fit` is between 0 and 1."""

    fit: float
    query: Query
    answer: Answer
    truth: list[Event]


def write_report(
    folder: Path,
    settings: Settings,
    benchmark: Benchmark,
    tasks: Sequence[Task],
    answered: Answered,
) -> Path | None:
    """Draw the `settings.plots` worst and as many best samples into a folder.

    Returns:
        the page `index.html`, or None where no answered query has a known truth.
    """
    from distime.visualize import plot_events, plot_grounding

    samples = []
    for query, answer in answered:
        truth = benchmark.truth(query) if answer is not None else []
        if truth:
            samples.append(Sample(fit(answer.events, truth), query, answer, truth))
    if not samples:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    samples.sort(key=lambda sample: sample.fit)
    chosen = [(f"worst-{i}", sample) for i, sample in enumerate(samples[: settings.plots], 1)]
    rest = samples[settings.plots :][-settings.plots :]
    chosen += [(f"best-{i}", sample) for i, sample in enumerate(reversed(rest), 1)]
    paths = {task.video: task.path for task in tasks}
    figures = []
    for name, (value, query, answer, truth) in chosen:
        shown = sample_video(
            paths[query.video],
            settings.num_segments,
            rule=benchmark.rule,
            bound=query.bound,
            backend=settings.video_backend,
        )
        picture, words = folder / f"{name}.png", query.title or query.question
        frames = {"frames": shown.frames, "frame_times": shown.times, "duration": shown.duration}
        if any(event.text for event in truth):
            plot_events(picture, **frames, title=query.video, events=answer.events, truth=truth)
        else:
            windows = [(event.start, event.end) for event in truth]
            plot_grounding(picture, **frames, query=words, events=answer.events, truth=windows)
        values = {
            "anchor": name,
            "place": name.replace("-", " "),
            "video": query.video,
            "fit": f"IoU {value:.3f}",
            "words": words,
            "answer": answer.readable,
            "picture": f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}",
        }
        figures.append(_FIGURE.format(**{key: html.escape(text) for key, text in values.items()}))
    mean = sum(sample.fit for sample in samples) / len(samples)
    page = _PAGE.format(
        title=html.escape(f"{benchmark.title}, {settings.checkpoint_name}"),
        summary=f"{len(samples)} answered queries, mean IoU {mean:.3f}. Shown are the "
        f"{min(settings.plots, len(samples))} worst, then the {len(rest)} best.",
        figures="\n".join(figures),
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"


def fit(events: Sequence[Event], truth: Sequence[Event]) -> float:
    """How well events match the true ones, 0 to 1.

    With words (dense captioning) the mean over the true events of the best IoU that any event has
    with them; without (moment retrieval) the best IoU of the first event, the one that counts.
    """

    def overlap(event: Event, true: Event) -> float:
        return iou((event.start, event.end), (true.start, true.end))

    if not any(event.text for event in truth):
        return max((overlap(event, true) for event in events[:1] for true in truth), default=0.0)
    best = [max((overlap(event, true) for event in events), default=0.0) for true in truth]
    return sum(best) / len(best)
