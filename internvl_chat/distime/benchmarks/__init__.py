"""The benchmarks, one file each: what is asked, what is written, how it is scored and prepared.

    from distime.benchmarks import score
    score("NAME", "results.json").metrics

``registry.py`` finds them, also those of other packages and files; ``base.py`` says what one is;
``result.py`` holds the numbers, ``runs.py`` finds them in a folder and ``table.py`` puts many side
by side. Every other file is a benchmark. None of them needs torch to score. How to add one:
docs/ADD_A_BENCHMARK.md.
"""

from distime.benchmarks.registry import (
    add_file,
    benchmarks,
    find,
    newest_predictions,
    of_file,
    official_data,
    prediction_files,
    score,
)
from distime.benchmarks.result import Result, compare

__all__ = [
    "Result",
    "add_file",
    "benchmarks",
    "compare",
    "find",
    "newest_predictions",
    "of_file",
    "official_data",
    "prediction_files",
    "score",
]
