"""Evaluation: ask a checkpoint the queries of a benchmark, on any number of processes.

    from distime.evaluate import Settings, run
    result = run(Settings(checkpoint="checkpoint/mine", benchmark="charades"))

Where to find what::

    settings.py       every setting, its default and what is checked before work starts
    benchmark.py      what a benchmark is: queries in, answers out
    benchmarks/       one small file for each: what to ask, what to write
    answering.py      one video's questions -> answers: decoding, prefix, batches
    journal.py        answers on disk as they come, so that a killed run continues
    processes.py      what processes tell one another
    runner.py         all of it together
    report.py         a page about a run: metrics, quality of times, examples
    calibration.py    is a surer time a better one?
    charts.py         its bar charts
    pages.py          such a page for everything in a results folder

How to run it: docs/EVALUATION.md. How to add a benchmark: docs/ADD_A_BENCHMARK.md.
"""

from distime.evaluate.runner import Result, run
from distime.evaluate.settings import Settings, SettingsError

__all__ = ["Result", "Settings", "SettingsError", "run"]
