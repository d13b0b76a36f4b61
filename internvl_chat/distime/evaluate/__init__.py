"""Evaluation: ask a checkpoint the queries of a benchmark, on any number of processes.

    from distime.evaluate import Settings, run
    result = run(Settings(checkpoint="checkpoint/mine", benchmark="NAME"))

Where to find what::

    settings.py       every setting, its default and what is checked before work starts
    answering.py      one video's questions -> answers: decoding, prefix, batches
    line_journal.py   lines on disk as they come, so that a killed run continues
    journal.py        answers as such lines
    processes.py      what processes tell one another
    runner.py         all of it together
    lmms_eval.py      DisTime as a model of lmms-eval, which asks its own tasks

Pages about runs are made by `distime.show`.
How to run it: docs/EVALUATION.md. How to add a benchmark: docs/ADD_A_BENCHMARK.md.
"""

import importlib

# Imported on first use: settings are read and refused without torch.
_EXPORTS = {
    "RunResult": "distime.evaluate.runner",
    "run": "distime.evaluate.runner",
    "Settings": "distime.evaluate.settings",
    "SettingsError": "distime.benchmarks.base",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'distime.evaluate' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
