"""The arithmetic of metrics: intervals, average precision, captions, options. No file, no torch.

What a benchmark makes of it stands in its file under `distime.benchmarks`. Definitions and
conventions: docs/METRICS.md.
"""

import importlib

# Programs written before the benchmarks had files of their own ask for these here.
_MOVED = {
    "MetricError": ("distime.files", "FileError"),
    "Result": ("distime.benchmarks", "Result"),
    "compare": ("distime.benchmarks", "compare"),
    "newest_predictions": ("distime.benchmarks", "newest_predictions"),
    "score": ("distime.benchmarks", "score"),
}


def __getattr__(name: str):
    if name not in _MOVED:
        raise AttributeError(f"module 'distime.metrics' has no attribute {name!r}")
    module, attribute = _MOVED[name]
    return getattr(importlib.import_module(module), attribute)
