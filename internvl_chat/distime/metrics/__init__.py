"""Metrics of the eight benchmarks: exact, fast, and open about the published scorer.

    from distime.metrics import score
    score("charades", "results.json").metrics["R1@0.5"]

Nothing here imports torch or the model. Definitions and conventions: docs/METRICS.md.
"""

from distime.metrics.files import MetricError
from distime.metrics.registry import BENCHMARKS, newest_predictions, score
from distime.metrics.result import Result, compare

__all__ = ["BENCHMARKS", "MetricError", "Result", "compare", "newest_predictions", "score"]
