"""The worked example of docs/ADD_A_BENCHMARK.md: a benchmark from outside, in one file."""

import json
import re
import sys
from pathlib import Path

import pytest

from distime import benchmarks
from distime.benchmarks import registry
from distime.benchmarks.base import SettingsError
from distime.cli import main
from distime.files import FileError

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def only_ours():
    """Forgets what a test has made known."""
    registry.benchmarks.cache_clear()
    yield
    registry.benchmarks.cache_clear()


@pytest.fixture
def doors(tmp_path, only_ours):
    """The file as the page shows it, named for the command line."""
    page = (DOCS / "ADD_A_BENCHMARK.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "doors.py"
    path.write_text(source, encoding="utf-8")
    return path


@pytest.mark.parametrize("how", ["file", "entry point"])
def test_prepare_evaluate_score_and_report(
    how, doors, checkpoint, videos, tmp_path, capsys, monkeypatch
):
    flag = ["--benchmark-file", str(doors)]
    if how == "entry point":
        flag = []
        installed = tmp_path / "installed"
        (installed / "doors-1.dist-info").mkdir(parents=True)
        (installed / "doors-1.dist-info" / "METADATA").write_text("Name: doors\nVersion: 1\n")
        (installed / "doors-1.dist-info" / "entry_points.txt").write_text(
            "[distime.benchmarks]\ndoors = doors_elsewhere\n"
        )
        (installed / "doors_elsewhere.py").write_text(doors.read_text())
        monkeypatch.syspath_prepend(str(installed))
        monkeypatch.delitem(sys.modules, "doors_elsewhere", raising=False)
        registry.benchmarks.cache_clear()
    root, specs = videos
    events = [(spec.name, event) for spec in specs[:1] for event in spec.events]
    rows = [f"{name},{event.start},{event.end},{event.query}" for name, event in events]
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / "doors.csv").write_text("\n".join(["video,start,end,what", *rows]))

    def run(*words):
        code = main([*map(str, words), *flag])
        return code, capsys.readouterr().out

    made = tmp_path / "made"
    arguments = ["--source", tmp_path / "official", "--out", made, "--video-root", root]
    code, out = run("prepare", "doors", *arguments)
    assert code == 0 and f"{len(events)} queries about 1 videos" in out

    results = tmp_path / "results" / "Doors" / "tiny"
    arguments = ["--checkpoint", checkpoint, "--annotation", made / "test.json"]
    arguments += ["--video-root", root, "--out-dir", results, "--device", "cpu"]
    arguments += ["--num-segments", "4", "--max-new-tokens", "12"]
    code, out = run("evaluate", "doors", *arguments)
    assert code == 0 and "mIoU" in out
    assert len(json.loads((results / "results.json").read_text())) == len(events)

    gt = ["--gt", made / "test.json"]
    code, out = run("score", "doors", results / "results.json", *gt)
    assert code == 0 and f"queries  {len(events)}" in out
    perfect = {str(i): [event.start, event.end] for i, (_, event) in enumerate(events)}
    (tmp_path / "perfect.json").write_text(json.dumps(perfect))
    code, out = run("score", "doors", tmp_path / "perfect.json", *gt)
    assert re.search(r"mIoU +100\.0000", out)

    code, out = run("report", tmp_path / "results")
    assert code == 0 and re.search(r"\| Doors \| mIoU \| .* a stopwatch 50\.0 \|", out)
    code, out = run("report", tmp_path / "results", "--html")
    assert code == 0 and "worst-1" in (results / "report.html").read_text()


def test_a_page_finds_the_file_by_itself(doors, only_ours):
    assert benchmarks.add_file(doors) == ["doors"]
    assert benchmarks.add_file(doors) == ["doors"]  # twice is no conflict
    assert benchmarks.find("doors").file == doors


def with_option(doors, name="unit"):
    """The file with a score option of its own."""
    source = doors.read_text()
    source = source.replace("import Answered,", "import Answered, ScoreOption,")
    source = source.replace(
        '    title = "Doors"',
        f'    score_options = {{"{name}": ScoreOption(("s", "min"), "of the times")}}\n'
        '    title = "Doors"',
    )
    source = source.replace("published: bool = False)", f'published=False, {name}="s")')
    return source.replace("retrieval(pairs)", f'{{"minutes": float({name} == "min")}}')


def test_score_options_of_a_file_are_flags(doors, tmp_path, capsys):
    doors.write_text(with_option(doors))
    (tmp_path / "test.json").write_text('{"0": {"window": [1, 2]}}')
    (tmp_path / "pred.json").write_text('{"0": [1, 2]}')
    files = [str(tmp_path / "pred.json"), "--gt", str(tmp_path / "test.json")]
    flag = ["--benchmark-file", str(doors)]
    # In whatever order: the flag is no prediction file.
    for words in (
        ["doors", *files, *flag, "--unit", "min"],
        [*flag, "doors", "--unit=min", *files],
        [f"--benchmark-file={doors}", "--unit", "min", "doors", *files],
    ):
        assert main(["score", *words]) == 0
        assert "minutes   1.0000" in capsys.readouterr().out
    assert main(["score", "doors", *files, *flag]) == 0
    assert "minutes   0.0000" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["score", "doors", *files, *flag, "--unit", "hours"])
    with pytest.raises(SystemExit):
        main(["score", *flag, "--help"])
    assert "doors: of the times" in capsys.readouterr().out
    with pytest.raises(FileError, match="unit hours: choose one of s, min"):
        benchmarks.score("doors", files[0], files[2], unit="hours")


def test_evaluate_and_report_take_score_options(doors, checkpoint, videos, tmp_path, capsys):
    doors.write_text(with_option(doors))
    root, specs = videos
    item = {"video": specs[0].name, "what": "it opens", "window": [0, 1]}
    (tmp_path / "test.json").write_text(json.dumps({"0": item}))
    results = tmp_path / "results" / "Doors" / "tiny"
    flag = ["--benchmark-file", str(doors)]
    arguments = ["--checkpoint", checkpoint, "--annotation", tmp_path / "test.json"]
    arguments += ["--video-root", root, "--out-dir", results, "--device", "cpu"]
    arguments += ["--num-segments", "4", "--max-new-tokens", "4", *flag]
    assert main(["evaluate", "doors", "--unit", "min", *map(str, arguments)]) == 0
    assert "minutes   1.0000" in capsys.readouterr().out
    assert json.loads((results / "run.json").read_text())["settings"]["score_options"] == {
        "unit": "min"
    }
    (results / "score.json").unlink()  # so that the report scores again, as the run did
    assert main(["report", str(tmp_path / "results"), *flag]) == 0
    assert "| Doors | minutes | 1.00 |" in capsys.readouterr().out
    other = next(name for name, one in benchmarks.benchmarks().items() if not one.score_options)
    assert main(["evaluate", other, "--unit", "min", *map(str, arguments)]) == 1
    assert f"--unit min: {other} does not take it" in capsys.readouterr().err


def test_score_options_of_several_benchmarks(doors, capsys):
    """They may share a name, but not take that of another flag."""
    shared = next(name for one in benchmarks.benchmarks().values() for name in one.score_options)
    source = doors.read_text()
    doors.write_text(with_option(doors, shared))
    with pytest.raises(SystemExit):
        main(["score", "--benchmark-file", str(doors), "--help"])
    assert "doors: of the times" in " ".join(capsys.readouterr().out.split())
    registry.benchmarks.cache_clear()
    doors.write_text(source)
    doors.write_text(with_option(doors, "output"))
    assert main(["score", "doors", "x.json", "--benchmark-file", str(doors)]) == 1
    assert "its score option 'output' is a flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no such file"),
        ("x = ", "it cannot be run"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("x = 1", "defines no class"),
    ],
)
def test_files_that_are_no_benchmark(source, message, tmp_path, only_ours, capsys):
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(SettingsError, match=message):
        benchmarks.add_file(path)
    assert main(["score", "mine", "x.json", "--benchmark-file", str(path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: --benchmark-file ") and err.count("\n") == 1


def test_names_are_unique(doors, only_ours):
    first = next(iter(benchmarks.benchmarks()))
    doors.write_text(doors.read_text().replace('name = "doors"', f'name = "{first}"'))
    with pytest.raises(SettingsError, match=f"a benchmark '{first}' is there already"):
        benchmarks.add_file(doors)


def test_a_name_that_is_unknown_is_told(only_ours):
    with pytest.raises(FileError, match="no benchmark 'doors'; choose one of .*--benchmark-file"):
        benchmarks.find("doors")
