"""One evaluation from settings to result files, on any number of processes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from distime import benchmarks
from distime.benchmarks import add_file, find
from distime.benchmarks.base import Answered, Benchmark, Query, SettingsError
from distime.data.video_finder import VideoFinder
from distime.evaluate.answering import Answerer, Task, units_of
from distime.evaluate.journal import Journal, Records
from distime.evaluate.processes import Processes, joined_processes
from distime.evaluate.settings import Settings
from distime.files import FileError, json_lines, read_json, write_json, write_text
from distime.provenance import versions
from distime.show.report import FinishedRun, write_report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Attributes:
        path: the result file, in the published schema.
        run: what `run.json` holds: settings, versions, counts, failures, timing.
        score: the metrics, None where nothing was scored.
        problem: why the run is not a success, '' where it is one.
    """

    path: Path
    run: dict[str, Any]
    score: benchmarks.Result | None = None
    problem: str = ""


def run(settings: Settings) -> RunResult:
    """Evaluate a checkpoint on a benchmark; the same as `distime evaluate`.

    Under torchrun every process calls this and gets the same result. Answers that an earlier run
    of the same settings left in `settings.out_dir` are kept.

    Raises:
        SettingsError: the annotation cannot be read, no video can be found, or the folder holds
            answers of other settings.
    """
    started = time.perf_counter()
    benchmark = find(settings.benchmark)(settings)
    with joined_processes() as processes:
        queries, tasks = plan(benchmark, settings)
        journal = Journal(settings)
        if processes.is_first and settings.overwrite:
            journal.clear()
        done = processes.share(set(journal.read().answers) if processes.is_first else None)
        todo = [task for task in tasks if task.key not in done]
        if processes.is_first and done:
            logger.info("%d of %d videos were answered before", len(tasks) - len(todo), len(tasks))
        seconds: Counter[str] = Counter()
        if todo:
            seconds = answer_all(tasks, done, settings, benchmark, journal, processes)
        timing = {
            "seconds": round(time.perf_counter() - started, 2),
            "videos": len(todo),
            "queries": sum(len(task.queries) for task in todo),
            "by_process": [
                {name: round(value, 2) for name, value in one.items()}
                for one in processes.gather(seconds)
            ],
        }
        result = None
        if processes.is_first:
            result = finish(settings, benchmark, queries, tasks, journal.read(), timing)
        return processes.share(result)


def plan(benchmark: Benchmark, settings: Settings) -> tuple[list[Query], list[Task]]:
    """Read the queries and group them into tasks: those that are shown the same frames.

    Raises:
        SettingsError: there is no query, an id is not unique, or not one video can be found.
    """
    queries = list(benchmark.queries())[: settings.limit]
    if not queries:
        raise SettingsError(f"--annotation {settings.annotation}: it holds no query")
    repeated = [name for name, n in Counter(query.id for query in queries).items() if n > 1]
    if repeated:
        raise SettingsError(
            f"--annotation {settings.annotation}: {len(repeated)} ids stand in it more than once, "
            f"first {repeated[0]}"
        )
    tasks = group(queries, settings.video_root)
    if not any(task.path.exists() for task in tasks):
        raise SettingsError(
            f"--video-root {settings.video_root}: none of the {len(tasks)} videos is there, "
            f"first {tasks[0].path}"
        )
    return queries, tasks


def group(queries: Sequence[Query], video_root: Path) -> list[Task]:
    """Group queries into tasks; videos that are not there have the path they should have."""
    finder = VideoFinder(video_root)
    groups: dict[Any, list[Query]] = {}
    for query in queries:
        groups.setdefault((query.video, query.bound), []).append(query)
    paths = {video: finder.find(video) for video, _ in groups}
    return [Task(video, paths[video], tuple(asked)) for (video, _), asked in groups.items()]


def answer_all(
    tasks: Sequence[Task],
    done: Collection[str],
    settings: Settings,
    benchmark: Benchmark,
    journal: Journal,
    processes: Processes,
) -> Counter[str]:
    """Answer this process's share of the tasks; return the seconds it spent on what.

    A unit of which some tasks are `done` is answered whole, so that the others get the answers that
    they would have got.
    """
    units = units_of(tasks, settings.batch_size)
    units = [unit for unit in units if any(task.key not in done for task in unit)]
    answerer = Answerer(settings, benchmark, choose_device(settings.device, processes.local_rank))
    total = sum(len(task.queries) for task in tasks if task.key not in done)
    begun = time.perf_counter()
    with tqdm(
        total=total, unit="query", desc=settings.run_name, disable=not processes.is_first
    ) as bar:
        mine = ((number, units[number]) for number in taken(processes, len(units)))
        for task, outcome in answerer.answer(mine):
            if task.key in done:
                continue
            if isinstance(outcome, Exception):
                logger.warning("%s", outcome)
                journal.write_failure(task, str(outcome))
            else:
                journal.write(task, outcome, answerer.warnings[task.key])
            # The bar shows the work of all processes, so that its estimate is of the whole run.
            bar.update(processes.add_answered(len(task.queries)) - bar.n)
    journal.close()
    answerer.seconds["answering_all"] = time.perf_counter() - begun
    return answerer.seconds


def taken(processes: Processes, count: int) -> Iterator[int]:
    """Numbers below `count` that this process takes, as it comes to need them."""
    while (number := processes.take()) < count:
        yield number


def choose_device(name: str, local_rank: int) -> torch.device:
    """Return the device of a process: with "cuda" or "auto" each has a GPU of its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)


# ---------------------------------------------------------------------- after the last answer


def finish(
    settings: Settings,
    benchmark: Benchmark,
    queries: Sequence[Query],
    tasks: Sequence[Task],
    records: Records,
    timing: dict[str, Any],
) -> RunResult:
    """Write the result files, score them, and write `run.json`."""
    out_dir = settings.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    answered = match(queries, tasks, records)
    answers = [answer for _, answer in answered if answer is not None]
    choices = [benchmark.choice(query, answer) for query, answer in answered if answer is not None]
    unread = sum(choice is not None and not choice.is_read for choice in choices)
    path = benchmark.write(answered, out_dir)
    if settings.dump_distributions:
        write_text(out_dir / "distributions.jsonl", distributions(answered))
    failures = [
        {"video": task.video, "queries": len(task.queries), "reason": records.failures[task.key]}
        for task in tasks
        if task.key in records.failures
    ]
    warnings = [
        {"video": task.video, "queries": len(task.queries), "reason": reason}
        for task in tasks
        for reason in records.warnings.get(task.key, [])
    ]
    doubtful = len({warning["video"] for warning in warnings})
    if warnings:
        logger.warning(
            "%d of %d videos were used though something is wrong with them, first: %s",
            doubtful,
            len(tasks),
            warnings[0]["reason"],
        )
    score, problem = None, ""
    if len(failures) > settings.max_failures:
        problem = (
            f"{len(failures)} of {len(tasks)} videos failed, more than --max-failures "
            f"{settings.max_failures}; run again to try them again"
        )
    if settings.score:
        only = {benchmark.scored_key(query) for query in queries} if settings.limit else None
        try:
            score = benchmarks.score(
                settings.benchmark,
                path,
                settings.ground_truth,
                only=only,
                **(settings.score_options or {}),
            )
            score.write(out_dir / "score.json")
        except FileError as error:
            problem = f"the answers are in {path}, but cannot be scored: {error}"
    description = {
        "run": settings.run_name,
        "settings": settings.to_dict(),
        "fingerprint": settings.fingerprint(),
        "versions": versions(),
        "counts": {
            "videos": len(tasks),
            "queries": len(queries),
            "answered": len(answers),
            "without_time": sum(not answer.events for answer in answers),
            "reversed": sum(
                event.start > event.end for answer in answers for event in answer.events
            ),
            **({"unread_choices": unread} if any(choices) else {}),
            "failed_videos": len(failures),
            **({"videos_with_warnings": doubtful} if warnings else {}),
        },
        "failures": failures,
        "warnings": warnings,
        "timing": timing,
        "score": dict(score.metrics) if score else None,
    }
    stage = f"_stage{settings.stage}" if settings.stage else ""
    write_json(out_dir / f"run{stage}.json", description)
    if settings.plots:
        run = FinishedRun(settings, benchmark, tasks, answered, description, score)
        write_report(out_dir / "plots" / "index.html", run, settings.plots, out_dir / "plots")
    return RunResult(path, description, score, problem)


def read_finished(
    path: Path, annotation: Path | None = None, video_root: Path | None = None
) -> FinishedRun:
    """Read a run back from its folder.

    Args:
        path: of its `run.json`; answers are read from `answers/` beside it.
        annotation: where it is now; by default where it was.
        video_root: likewise. Videos need not be there.

    Raises:
        SettingsError: the annotation cannot be read, or there are no answers.
        FileError: `run.json` cannot be read.
    """
    description, _ = read_json(path, "run.json of an evaluation")
    moved = {"annotation": annotation, "video_root": video_root, "out_dir": path.parent}
    moved = {name: value for name, value in moved.items() if value is not None}
    settings = Settings.recorded(description["settings"] | moved)
    if settings.benchmark_file is not None:
        add_file(settings.benchmark_file)
    benchmark = find(settings.benchmark)(settings)
    queries = list(benchmark.queries())[: settings.limit]
    tasks = group(queries, settings.video_root)
    answered = match(queries, tasks, Journal.read_finished(path.parent, settings.run_name))
    if not any(answer for _, answer in answered):
        raise SettingsError(
            f"{path.parent / 'answers'}: no answer to a query of {settings.annotation}; give the "
            "annotation of the run with --annotation, or answer again"
        )
    return FinishedRun(settings, benchmark, tasks, answered, description, read_score(path.parent))


def read_score(folder: Path) -> benchmarks.Result | None:
    """The metrics of a run, where its folder has them."""
    path = folder / "score.json"
    return benchmarks.Result.read(path) if path.is_file() else None


def match(queries: Sequence[Query], tasks: Sequence[Task], records: Records) -> Answered:
    """Put every query, in annotation order, beside its answer."""
    answers = {
        query.id: answer
        for task in tasks
        for query, answer in zip(task.queries, records.answers.get(task.key, ()), strict=False)
    }
    return [(query, answers.get(query.id)) for query in queries]


def distributions(answered: Answered) -> str:
    """One JSON line per answered query: its times in seconds with their distributions."""
    lines = [
        {"id": query.id, "video": query.video, "question": query.question} | answer.to_dict()
        for query, answer in answered
        if answer is not None
    ]
    return json_lines(lines)
