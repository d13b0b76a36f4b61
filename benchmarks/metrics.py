"""Time and memory of every scorer, and the METEOR calls that it saves.

    python benchmarks/metrics.py                     the published 1B predictions, if they are there
    python benchmarks/metrics.py --data DIR          annotations/ and predictions_1B/ are in DIR
    python benchmarks/metrics.py --published charades youcook2_dvc

Each scorer runs in a process of its own. Seconds are wall time after imports; memory is the peak
of that process plus the peak of the largest Java process it started. Without the predictions the
small examples of data_example/ are timed, which shows what a start costs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "internvl_chat" / "data_example"

FILES = {
    "charades": ("Charades-STA/results.json", "charades/charades_sta_test.json"),
    "anet": ("ANet-Caption/results.json", "anet/val_2.json"),
    "qvh": ("QVHighlight/results.json", "qvhighlights/val.json"),
    "nextgqa": ("NExtGQA/result.json", "nextgqa/gsub_test.json"),
    "mvbench": ("MVBench/MVBench.json", None),
    "longvideobench": ("LongVideoBench/16frame_result.json", "longvideobench/lvb_val.json"),
    "youcook2_dvc": (
        "YouCook2-DVC/results.json",
        "youcook2_dvc/val.caption_coco_format.json",
    ),
    "anet_dvc": ("ANet-Caption-DVC/results.txt", "anet/val_2.json"),
}
"""Benchmark -> predictions and annotation within the data folder."""

EXAMPLE_FILES = {
    "charades": ("charades/example_predictions.json", "charades/example_annotation.json"),
    "anet": ("anet/example_predictions.json", "anet/example_annotation.json"),
    "qvh": ("qvhighlights/example_predictions.json", "qvhighlights/example_annotation.json"),
    "nextgqa": ("nextgqa/example/result.json", "nextgqa/example"),
    "mvbench": ("mvbench/example_predictions.json", None),
    "longvideobench": (
        "longvideobench/example_predictions.json",
        "longvideobench/example_annotation.json",
    ),
    "youcook2_dvc": (
        "youcook2_dvc/example_predictions.json",
        "youcook2_dvc/example_annotation.json",
    ),
    "anet_dvc": ("anet/example_dvc_log.txt", "anet/example_annotation.json"),
}

# Wall seconds of the published scorers, one process at a time on two idle cores (docs/METRICS.md).
PUBLISHED_SECONDS = {
    "charades": 1.4,
    "anet": 0.39,
    "qvh": 2.6,
    "nextgqa": 0.31,
    "youcook2_dvc": 41,
    "anet_dvc": 87,
}


def measure(benchmark: str, pred: str, gt: str | None, published: bool) -> dict[str, float]:
    """Score once in this process and return what it took."""
    from distime.benchmarks import find, score

    find(benchmark)  # The import of numpy and of the scorer is not part of the scoring.
    start, cpu = time.perf_counter(), cpu_seconds()
    result = score(benchmark, pred, gt, published=published)
    megabytes = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return {
        "seconds": time.perf_counter() - start,
        "cpu": cpu_seconds() - cpu,
        "memory": sum(megabytes),
        "alignments": result.counts.get("meteor_alignments", 0),
        "published_calls": result.counts.get("meteor_calls_one_by_one", 0),
    }


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help="default: all")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--published", action="store_true", help="also the published values")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        benchmark, pred, gt = args.one
        print(json.dumps(measure(benchmark, pred, gt or None, args.published)))
        return 0
    unknown = set(args.benchmarks) - FILES.keys()
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; choose from {', '.join(FILES)}")
    if args.data.is_dir():
        print(f"predictions in {args.data}")
    else:
        print(f"no folder {args.data}: timing the examples")
    row = "{:<16}{:>9}{:>9}{:>9}{:>13}{:>9}{:>9}{:>9}"
    print(row.format("", "seconds", "CPU s", "peak MB", "published s", "faster", "METEOR", "saved"))
    for benchmark in args.benchmarks or FILES:
        if args.data.is_dir():
            pred, gt = FILES[benchmark]
            pred = args.data / "predictions_1B" / pred
            gt = args.data / "annotations" / gt if gt else ""
        else:
            pred, gt = EXAMPLE_FILES[benchmark]
            pred, gt = EXAMPLES / pred, EXAMPLES / gt if gt else ""
        flags = ["--published"] if args.published else []
        command = [sys.executable, __file__, *flags, "--one", benchmark, str(pred), str(gt)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{benchmark}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return 1
        took = json.loads(done.stdout)
        published = PUBLISHED_SECONDS.get(benchmark) if args.data.is_dir() else None
        calls, made = took["published_calls"], took["alignments"]
        print(
            row.format(
                benchmark,
                f"{took['seconds']:.2f}",
                f"{took['cpu']:.2f}",
                f"{took['memory']:.0f}",
                f"{published:g}" if published else "-",
                f"{published / took['seconds']:.1f}x" if published else "-",
                f"{made:.0f}" if calls else "-",
                f"{calls - made:.0f}" if calls else "-",
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
