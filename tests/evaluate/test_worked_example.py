"""The worked example of docs/ADD_A_BENCHMARK.md is run as it stands there."""

import json
import re
from pathlib import Path

import pytest

from distime.data.synthetic import SyntheticVideo
from distime.evaluate import Settings, run
from distime.evaluate.benchmarks import BENCHMARKS
from distime.metrics.registry import BENCHMARKS as METRICS
from distime.metrics.registry import Benchmark
from distime.processing.questions import JOIN

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def tacos(monkeypatch):
    page = (DOCS / "ADD_A_BENCHMARK.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(source, "tacos.py", "exec"), names)
    monkeypatch.setitem(BENCHMARKS, "tacos", names["Tacos"])
    monkeypatch.setitem(JOIN, "tacos", "")
    entry = Benchmark("tacos", "TACoS", "tacos:score", ("results.json",), None)
    monkeypatch.setitem(METRICS, "tacos", entry)


def test_the_example_runs(tacos, checkpoint, videos, tmp_path):
    root, specs = videos
    spec: SyntheticVideo = specs[0]
    item = {
        "duration": spec.duration,
        "timestamps": [[event.start, event.end] for event in spec.events],
        "sentences": [event.query for event in spec.events],
    }
    (tmp_path / "test.json").write_text(json.dumps({spec.name: item}))
    result = run(
        Settings(
            checkpoint=checkpoint,
            benchmark="tacos",
            annotation=tmp_path / "test.json",
            video_root=root,
            out_dir=tmp_path / "out",
            num_segments=4,
            max_new_tokens=12,
            device="cpu",
            score=False,
            plots=1,
        )
    )
    assert len(json.loads(result.path.read_text())) == len(spec.events)
    assert (tmp_path / "out" / "plots" / "index.html").is_file()
