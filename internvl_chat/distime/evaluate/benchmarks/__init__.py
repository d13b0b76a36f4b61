"""The benchmarks, each a class in a file of its own."""

from distime.evaluate.benchmarks.anet import Anet
from distime.evaluate.benchmarks.anet_dvc import AnetDVC
from distime.evaluate.benchmarks.charades import Charades
from distime.evaluate.benchmarks.longvideobench import LongVideoBench
from distime.evaluate.benchmarks.mvbench import MVBench
from distime.evaluate.benchmarks.nextgqa import NextGQA
from distime.evaluate.benchmarks.qvh import QVHighlights
from distime.evaluate.benchmarks.youcook2_dvc import YouCook2

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Charades,
        Anet,
        QVHighlights,
        YouCook2,
        AnetDVC,
        NextGQA,
        MVBench,
        LongVideoBench,
    )
}
"""Every benchmark by its name on the command line."""
