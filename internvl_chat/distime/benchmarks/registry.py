"""The benchmarks by name, and the one door to their scores.

A benchmark is a class derived from `distime.benchmarks.base.Benchmark`. It comes from a module of
this package, from a package that names it in the entry point group ``distime.benchmarks``, or from
a Python file (`add_file`, ``--benchmark-file``).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import pkgutil
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from distime import paths
from distime.benchmarks.base import Benchmark, SettingsError
from distime.benchmarks.result import Result
from distime.data.et_instruct import ET_INSTRUCT
from distime.data.official import OfficialData
from distime.files import FileError
from distime.values import expect

logger = logging.getLogger(__name__)

GROUP = "distime.benchmarks"
"""Entry point group: ``my_name = my_package.my_module``, a module or the class itself."""


@cache
def benchmarks() -> dict[str, type[Benchmark]]:
    """Return every benchmark by its name on the command line: ours first, then installed ones.

    One that cannot be imported, or whose name is taken, is left out with a warning.
    """
    import distime.benchmarks as package

    found: dict[str, type[Benchmark]] = {}
    modules = (importlib.import_module(f"{package.__name__}.{module.name}")
               for module in pkgutil.iter_modules(package.__path__))  # fmt: skip
    for benchmark in sorted(
        (one for module in modules for one in defined_in(module)), key=lambda one: one.rank
    ):
        found[benchmark.name] = benchmark
    for point in entry_points(group=GROUP):
        try:
            loaded = point.load()
        except Exception as error:  # whatever a stranger's module does when it is imported
            logger.warning("benchmarks of %s: left out (%r)", point.value, error)
            continue
        for benchmark in defined_in(loaded) if isinstance(loaded, ModuleType) else [loaded]:
            try:
                _add(found, benchmark, point.value)
            except SettingsError as error:
                logger.warning("%s: left out", error)
    return found


def defined_in(module: ModuleType) -> list[type[Benchmark]]:
    """Return the benchmarks that a module defines itself."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Benchmark)
        and value.__module__ == module.__name__
        and "name" in vars(value)
    ]


def add_file(path: str | Path) -> list[str]:
    """Make the benchmarks of a Python file known to this process; return their names.

    Raises:
        SettingsError: the file cannot be imported, defines none, or one whose name is taken.
    """
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"--benchmark-file {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"distime_benchmark_{path.stem}", path)
    if spec is None:
        raise SettingsError(f"--benchmark-file {path}: give a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file does when it is run
        raise SettingsError(f"--benchmark-file {path}: it cannot be run ({error!r})") from error
    classes = defined_in(module)
    if not classes:
        raise SettingsError(
            f"--benchmark-file {path}: it defines no class derived from "
            "distime.benchmarks.base.Benchmark with a name; see docs/ADD_A_BENCHMARK.md"
        )
    for benchmark in classes:
        benchmark.file = path.resolve()
        _add(benchmarks(), benchmark, str(path))
    return [benchmark.name for benchmark in classes]


def _add(found: dict[str, type[Benchmark]], benchmark: type[Benchmark], source: str) -> None:
    other = found.get(benchmark.name)
    same_file = other is not None and other.file and other.file == benchmark.file
    if other is not None and other is not benchmark and not same_file:
        raise SettingsError(
            f"{source}: a benchmark {benchmark.name!r} is there already ({other.__module__}); give "
            "yours another name"
        )
    found[benchmark.name] = benchmark


def find(name: str) -> type[Benchmark]:
    """Return the benchmark of that name.

    Raises:
        FileError: there is none.
    """
    known = benchmarks()
    if name not in known:
        raise FileError(
            f"there is no benchmark {name!r}; choose one of {', '.join(known)}, or name the file "
            "of another with --benchmark-file."
        )
    return known[name]


def of_file(name: str) -> type[Benchmark] | None:
    """Return the benchmark that asks an annotation named in its place, by the name's ending."""
    if name in benchmarks():
        return None
    return next((b for b in benchmarks().values() if name.endswith(b.suffixes or "\0")), None)


def official_data() -> dict[str, OfficialData]:
    """Return what `distime prepare` can convert, by its name: benchmarks and training data."""
    found = {
        name: OfficialData(
            name, one.convert, one.official_queries, one.official_videos, one.official_note
        )
        for one in benchmarks().values()
        if one.convert is not None
        for name in [one.prepared_as or one.name]
    }
    return found | {ET_INSTRUCT.name: ET_INSTRUCT}


def score(
    name: str,
    pred_path: str | Path | Sequence[str | Path],
    gt_path: str | Path | None = None,
    *,
    published: bool = False,
    only: Collection[Hashable] | None = None,
    **options: Any,
) -> Result:
    """Score a prediction file; the door used by the command, the scripts and evaluation.

    Args:
        name: of the benchmark.
        pred_path: the predictions (formats: docs/METRICS.md); some benchmarks take several files.
        gt_path: the annotations; by default the benchmark's file under ``data_example/``.
        published: also compute what the published scorer gives.
        only: `Benchmark.scored_key` of the queries that count; a warning says how many these are.
        options: what only some benchmarks take (`Benchmark.score_options`).

    Returns:
        The metrics in percent, with the files that were read.

    Raises:
        FileError: unknown benchmark or option, a missing file, or one that does not fit.
    """
    benchmark = find(name)
    unknown = options.keys() - benchmark.score_options.keys()
    expect(not unknown, name, f"it takes no option {', '.join(sorted(unknown))}.")
    for option, value in options.items():
        choices = benchmark.score_options[option].choices
        fits = not choices or value in choices
        expect(fits, f"{name}, {option} {value}", f"choose one of {', '.join(choices)}.")
    files = [Path(p) for p in ([pred_path] if isinstance(pred_path, str | Path) else pred_path)]
    expect(
        1 <= len(files) <= benchmark.file_limit,
        name,
        f"it takes {'one or two files' if benchmark.file_limit > 1 else 'one prediction file'}, "
        f"not {len(files)}.",
    )
    gt = default_ground_truth(benchmark)
    if gt is not None and gt_path is not None:
        gt = Path(gt_path)
    if gt is not None and gt_path is None and not gt.exists():
        if not benchmark.ground_truth_is_optional:
            raise FileError(
                f"{gt}: no such file; put the official annotation there or name it with --gt."
            )
        gt = None
    warnings = []
    if only is not None and "only" in inspect.signature(benchmark.score).parameters:
        options["only"] = only
        warnings = [f"scored are the {len(only)} queries that were asked, and no others (--limit)."]
    elif only is not None and benchmark.scored_by_annotation:
        warnings = [f"{len(only)} queries were asked (--limit); all others count as misses."]
    elif only is not None:
        warnings = [f"{len(only)} queries were asked (--limit)."]
    result = benchmark.score(
        files[0] if len(files) == 1 else files, gt, published=published, **options
    )
    result = replace(result, warnings=(*warnings, *result.warnings))
    read = {"predictions": ", ".join(map(str, files)), **({"ground_truth": str(gt)} if gt else {})}
    return replace(result, files={**read, **result.files})


def default_ground_truth(benchmark: type[Benchmark]) -> Path | None:
    """Return where the annotation that the metric reads is expected; None where it reads none."""
    if not benchmark.scored_by_annotation:
        return None
    annotation = paths.home() / benchmark.annotation_root / benchmark.annotation
    return annotation.parent / benchmark.ground_truth if benchmark.ground_truth else annotation


def newest_predictions(name: str, root: Path | None = None, annotation: Path | None = None) -> Path:
    """Return the predictions of a benchmark that were written last.

    Args:
        name: of the benchmark.
        root: the results folder, by default ``internvl_chat/results``.
        annotation: that was asked; the results of a user's own file lie below its name.

    Raises:
        FileError: there are none; the message gives the command that makes them.
    """
    benchmark = find(name)
    root = root or paths.results()
    folder = root / benchmark.result_folder(annotation or Path(benchmark.annotation))
    runs = prediction_files(benchmark, folder.glob("*"))
    if not runs:
        raise FileError(
            f"{folder}: no {benchmark.predictions[0]} of any checkpoint; make one "
            f"with `sh internvl_chat/evaluate.sh CHECKPOINT {name}` or name the predictions."
        )
    return max(runs, key=lambda path: path.stat().st_mtime)


def prediction_files(benchmark: type[Benchmark], folders: Iterable[Path]) -> list[Path]:
    """Return the prediction file of every folder that has one."""
    found = []
    for folder in folders:
        candidates = [folder / name for name in benchmark.predictions]
        found += [path for path in candidates if path.is_file()][:1]
    return found
