"""Report pages of everything in a results folder."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distime.benchmarks import Result, benchmarks, find
from distime.benchmarks.base import SettingsError
from distime.benchmarks.table import finished_runs, found_predictions, score_run
from distime.evaluate.report import (
    Link,
    facts_html,
    metrics_html,
    note,
    table_html,
    write_page,
    write_report,
)
from distime.evaluate.runner import read_finished, read_score
from distime.files import FileError, read_json
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
    runs = finished_runs(results_dir)
    folders = {path.parent for path in runs}
    others = [one for one in found_predictions(results_dir) if one[1].parent not in folders]
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
        except (SettingsError, FileError) as error:
            on_problem(f"{page}: without samples: {error}")
            _write_without_samples(page, path, str(error))
        description, _ = read_json(path, "run.json of an evaluation")
        name = description["settings"]["benchmark"]
        counts = description.get("counts", {})
        written.append(_Written(page, name, read_score(path.parent), counts))
        yield page
    for name, path in others:
        page = path.with_name("report.html")
        try:
            score = score_run(name, path)
        except FileError as error:
            on_problem(str(error))
            continue
        why = note(
            "These predictions have no run.json and no answers/ beside them, which evaluation "
            "writes: their confidences are unknown."
        )
        title = f"{find(name).title}, {path.parent.name}"
        write_page(page, title, [metrics_html(score, name), why])
        written.append(_Written(page, name, score))
        yield page
    if folders != {results_dir}:
        yield _write_index(results_dir / "index.html", written)


class _Written(NamedTuple):
    """A page of a run of a benchmark."""

    page: Path
    benchmark: str
    score: Result | None
    counts: Mapping[str, int] = {}


def _write_index(path: Path, written: Sequence[_Written]) -> Path:
    """Write a page with a table for each benchmark, where each run is a link to its page."""
    body = []
    for name, entry in benchmarks().items():
        runs = sorted((one for one in written if one.benchmark == name), key=lambda one: one.page)
        if not runs:
            continue
        metrics = entry.headline
        rows = [
            [Link(one.page.relative_to(path.parent).as_posix(), _run_words(one.page))]
            + [one.score.metrics.get(metric, "") if one.score else "" for metric in metrics]
            + [one.counts.get("queries", ""), one.counts.get("answered", "")]
            for one in runs
        ]
        published = [entry.released.get(metric, "") for metric in metrics]
        rows.append(["published 1B predictions", *published, "", ""])
        body.append(f"<h2>{html.escape(entry.title)}</h2>")
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
    name = settings["benchmark"]
    body = [
        facts_html(description),
        metrics_html(read_score(run.parent), name),
        note(
            f"The answers cannot be shown: {problem}. Paths are those that the evaluation was "
            "given: call `distime report` from the same folder, or name them with --annotation "
            "and --video-root."
        ),
    ]
    write_page(page, f"{find(name).title}, {Path(settings['checkpoint']).name}", body)
