"""Whole evaluations of all benchmarks: what is written, and that nothing else changes it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distime.evaluate import Settings, run
from evaluate.conftest import one_thread
from evaluate.tiny_benchmarks import RUNS

SEVERAL_RUNS = Path(__file__).with_name("several_runs.py")


def test_every_query_is_answered(one_process):
    for name, (_, result) in one_process.items():
        counts = result.run["counts"]
        assert counts["answered"] == counts["queries"] > 0, name
        assert not result.problem, name
        assert (result.score is None) == ("dvc" in name or name == "nextgqa 1"), name
    texts = [answer_texts(settings["out_dir"]) for settings, _ in one_process.values()]
    assert len({text for group in texts for text in group}) > 20  # the inputs matter


def answer_texts(out_dir: Path) -> list[str]:
    lines = [line for path in out_dir.glob("answers/*") for line in path.read_text().split("\n")]
    records = [json.loads(line) for line in lines if line]
    return [answer["text"] for record in records for answer in record.get("answers", ())]


@pytest.fixture(scope="module")
def two_processes(one_process, tmp_path_factory) -> dict[str, Path]:
    """The result folders of every run by two processes."""
    out = tmp_path_factory.mktemp("two processes")
    runs = [settings | {"out_dir": out / name} for name, (settings, _) in one_process.items()]
    for settings, name in zip(runs, one_process, strict=True):
        if name == "nextgqa 2":
            settings["timestamps"] = out / "nextgqa 1" / "result_timestamp.json"
    path = out / "settings.json"
    path.write_text(json.dumps(runs, default=str))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc_per_node", "2", str(SEVERAL_RUNS), str(path)],
        env=one_thread(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: out / name for name in one_process}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_write_the_same_files(name, one_process, two_processes):
    assert_same_results(one_process[name][1], two_processes[name])
    description = json.loads(next(two_processes[name].glob("run*.json")).read_text())
    assert len(description["timing"]["by_process"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_two_continued_as_one_write_the_same_files(
    name, one_process, two_processes, tmp_path
):
    """What processes leave when they are killed: some videos, and lines cut short."""
    settings, expected = one_process[name]
    answers = tmp_path / "answers"
    answers.mkdir()
    files = [path.read_text() for path in (two_processes[name] / "answers").iterdir()]
    records = [line for text in files for line in text.splitlines(keepends=True)[1:]]
    header = files[0].splitlines(keepends=True)[0]
    prefix = name.replace(" ", "_stage")
    (answers / f"{prefix}-a.jsonl").write_text(header + records[0])
    (answers / f"{prefix}-b.jsonl").write_text(header + records[1][: len(records[1]) // 2])
    (answers / f"{prefix}-c.jsonl").write_text(header[:20])
    if name == "nextgqa 2":
        settings = settings | {"timestamps": settings["out_dir"] / "result_timestamp.json"}
    result = run(Settings(**settings | {"out_dir": tmp_path}))
    assert 0 < result.run["timing"]["videos"] == result.run["counts"]["videos"] - 1
    assert_same_results(expected, tmp_path)


def assert_same_results(expected, folder: Path):
    assert (folder / expected.path.name).read_bytes() == expected.path.read_bytes()
    if expected.score is not None:
        score = json.loads((folder / "score.json").read_text())
        assert score["metrics"] == dict(expected.score.metrics)
        assert score["counts"] == dict(expected.score.counts)


@pytest.mark.parametrize("name", RUNS)
def test_the_published_way_gives_the_same_answers(name, one_process, tmp_path):
    """No shared prefix, one query at a time: every video encoded anew for every query."""
    settings, expected = one_process[name]
    if name == "nextgqa 2":
        settings = settings | {"timestamps": settings["out_dir"] / "result_timestamp.json"}
    published = settings | {"out_dir": tmp_path, "share_prefix": False, "batch_size": 1}
    result = run(Settings(**published))
    assert sorted(answer_texts(tmp_path))
    if name != "youcook2_dvc" and name != "anet_dvc":  # they hold times that are not rounded
        assert result.path.read_bytes() == expected.path.read_bytes()
    else:
        assert almost(result.path, expected.path)


def almost(path: Path, other: Path) -> bool:
    """Whether two files are the same up to the last digits of their numbers."""
    numbers = [
        [word.strip("[],\"'\\") for word in file.read_text().split()] for file in (path, other)
    ]
    return all(
        a == b or float(a) == pytest.approx(float(b), abs=1e-3)
        for a, b in zip(*numbers, strict=True)
    )
