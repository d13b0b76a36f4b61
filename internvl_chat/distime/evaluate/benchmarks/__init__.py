"""The benchmarks, each a class in a file of its own."""

from distime.evaluate.benchmarks.charades import Charades

BENCHMARKS = {benchmark.name: benchmark for benchmark in (Charades,)}
"""Every benchmark by its name on the command line."""
