"""Report pages of everything in a results folder."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distime.benchmarks import Result, benchmarks, find
from distime.benchmarks.base import Benchmark
from distime.benchmarks.runs import find_runs, run_files
from distime.benchmarks.table import score_run, shown_metrics
from distime.errors import DisTimeError
from distime.evaluate.runner import read_finished, read_score
from distime.files import read_json
from distime.show.report import (
    Link,
    facts_html,
    metrics_html,
    note,
    table_html,
    write_page,
    write_report,
)
from distime.values import expect


def write_pages(
    results_dir: Path,
    *,
    examples: int,
    annotation: Path | None = None,
    video_root: Path | None = None,
    on_problem: Callable[[str], None] = lambda message: None,
) -> Iterator[Path]:
    """Write a page beside every run: `report.html`, for a stage of a run `report_stage1.html`.

    Predictions without a `run.json`, such as published ones, get a page with their metrics alone.
    Where the folder is not that of one run, its `index.html` has them all.

    Args:
        results_dir: folder of one run, or one that holds `<Benchmark>/<checkpoint>/`.
        examples: how many of the worst (wrong) and of the best (right) samples to show.
        annotation: of the one run, if it is not where it was.
        video_root: likewise.
        on_problem: called with a message for whatever a page has to do without.

    Yields:
        the paths of the pages, as they are written.

    Raises:
        FileError: there is nothing to report, or several runs for one annotation.
    """
    expect(results_dir.is_dir(), str(results_dir), "no such folder; give a results folder.")
    runs = run_files(results_dir)
    folders = {path.parent for path in runs}
    others = [run for run in find_runs(results_dir) if not run.has_answers]
    expect(
        runs or others,
        str(results_dir),
        "it holds no run.json and no predictions; make some with "
        "`sh internvl_chat/evaluate.sh CHECKPOINT BENCHMARK`.",
    )
    moved = annotation or video_root
    expect(
        not moved or len(runs) == 1,
        str(results_dir),
        f"--annotation and --video-root belong to one run, and here are {len(runs)}; give the "
        "folder of one.",
    )
    written = []
    for path in runs:
        page = path.with_name(path.name.replace("run", "report", 1)).with_suffix(".html")
        try:
            write_report(page, read_finished(path, annotation, video_root), examples)
        except DisTimeError as error:
            on_problem(f"{page}: without samples: {error}")
            _write_without_samples(page, path, str(error))
        description, _ = read_json(path, "run.json of an evaluation")
        counts = description.get("counts", {})
        kind = find(description["settings"]["benchmark"])
        title = kind.result_folder(Path(description["settings"]["annotation"]))
        written.append(_Written(page, kind, title, read_score(path.parent), counts))
        yield page
    for run in others:
        page = run.predictions.with_name("report.html")
        try:
            score = score_run(run.benchmark.name, run.predictions)
        except DisTimeError as error:
            on_problem(str(error))
            continue
        why = note(
            "These predictions have no run.json and no answers/ beside them, which evaluation "
            "writes: their confidences are unknown."
        )
        title = f"{run.title}, {run.predictions.parent.name}"
        write_page(page, title, [metrics_html(score, run.benchmark.name), why])
        written.append(_Written(page, run.benchmark, run.title, score))
        yield page
    if folders != {results_dir}:
        yield _write_index(results_dir / "index.html", written)


class _Written(NamedTuple):
    """A page of a run of a benchmark."""

    page: Path
    benchmark: type[Benchmark]
    title: str
    score: Result | None
    counts: Mapping[str, int] = {}


def _write_index(path: Path, written: Sequence[_Written]) -> Path:
    """Write a page with a table for each benchmark, where each run is a link to its page."""
    body = []
    order = list(benchmarks().values())
    kinds = {(one.benchmark, one.title) for one in written}
    for entry, title in sorted(kinds, key=lambda kind: (order.index(kind[0]), kind[1])):
        runs = [one for one in written if (one.benchmark, one.title) == (entry, title)]
        runs.sort(key=lambda one: one.page)
        metrics = shown_metrics(entry, [one.score for one in runs])
        rows = [
            [Link(one.page.relative_to(path.parent).as_posix(), _run_words(one.page))]
            + [one.score.metrics.get(metric, "") if one.score else "" for metric in metrics]
            + [one.counts.get("queries", ""), one.counts.get("answered", "")]
            for one in runs
        ]
        for size, values in entry.published_models().items():
            published = [values.get(metric, "") for metric in metrics]
            rows.append([f"published {size} predictions", *published, "", ""])
        body.append(f"<h2>{html.escape(title)}</h2>")
        body.append(table_html(rows, ["percent", *metrics, "queries", "answered"]))
    write_page(path, "Runs", body)
    return path


def _run_words(page: Path) -> str:
    """Name a run by its folder, and its stage where it has one."""
    stage = page.stem.removeprefix("report").removeprefix("_stage")
    return page.parent.name + (f", stage {stage}" if stage else "")


def _write_without_samples(page: Path, run: Path, problem: str) -> None:
    description, _ = read_json(run, "run.json of an evaluation")
    settings = description["settings"]
    kind = find(settings["benchmark"])
    body = [
        facts_html(description),
        metrics_html(read_score(run.parent), kind.name),
        note(
            f"The answers cannot be shown: {problem}. Paths are those that the evaluation was "
            "given: call `distime report` from the same folder, or name them with --annotation "
            "and --video-root."
        ),
    ]
    title = kind.result_folder(Path(settings["annotation"]))
    write_page(page, f"{title}, {Path(settings['checkpoint']).name}", body)
