"""`distime score`, `distime report`, the published script names and the examples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distime.benchmarks import Result, benchmarks, compare, find, newest_predictions, score
from distime.benchmarks import table as reports
from distime.cli import main
from distime.files import FileError

ROOT = Path(__file__).resolve().parents[2] / "internvl_chat"
EXAMPLES = ROOT / "data_example"
CHARADES = EXAMPLES / "charades/example_predictions.json"
CHARADES_GT = EXAMPLES / "charades/example_annotation.json"


@pytest.mark.parametrize(
    ("benchmark", "pred", "gt", "expected"),
    [
        ("charades", CHARADES, CHARADES_GT, {"R1@0.5": 200 / 3, "mIoU": 50}),
        (
            "anet",
            EXAMPLES / "anet/example_predictions.json",
            EXAMPLES / "anet/example_annotation.json",
            {"R1@0.3": 200 / 3, "R1@0.5": 100 / 3, "mIoU": 100 * (0.8 + 0.5) / 3},
        ),
        (
            "qvh",
            EXAMPLES / "qvhighlights/example_predictions.json",
            EXAMPLES / "qvhighlights/example_annotation.json",
            {"R1@0.7": 50, "mAP@0.5": 50, "mIoU": 47.5},
        ),
        (
            "nextgqa",
            EXAMPLES / "nextgqa/example/result.json",
            EXAMPLES / "nextgqa/example",
            {"Acc@GQA": 200 / 3, "mIoP": 100 * 1.6 / 3, "Acc@QA": 200 / 3},
        ),
        ("mvbench", EXAMPLES / "mvbench/example_predictions.json", None, {"Avg": 100 / 3}),
        (
            "longvideobench",
            EXAMPLES / "longvideobench/example_predictions.json",
            EXAMPLES / "longvideobench/example_annotation.json",
            {"Accuracy_overall": 50, "duration_group=15": 100},
        ),
        pytest.param(
            "youcook2_dvc",
            EXAMPLES / "youcook2_dvc/example_predictions.json",
            EXAMPLES / "youcook2_dvc/example_annotation.json",
            {"F1": 81.25, "Recall@0.9": 25, "n_preds": 1.5},
            marks=pytest.mark.java,
        ),
        pytest.param(
            "anet_dvc",
            EXAMPLES / "anet/example_dvc_log.txt",
            EXAMPLES / "anet/example_annotation.json",
            {"F1": 100, "Precision@0.9": 100},
            marks=pytest.mark.java,
        ),
    ],
)
@pytest.mark.usefixtures("no_paraphrases")
def test_examples(benchmark, pred, gt, expected):
    result = score(benchmark, pred, gt, published=True)
    for name, value in expected.items():
        assert result.metrics[name] == pytest.approx(value, abs=1e-4), name
    assert result.published_as_run
    assert json.loads(str(result))["benchmark"] == benchmark


def run(*args: object) -> int:
    return main(["score", *map(str, args)])


def test_table_and_output(capsys, tmp_path):
    output = tmp_path / "deep" / "metrics.json"
    assert run("charades", CHARADES, "--gt", CHARADES_GT, "--output", output, "--published") == 0
    text = capsys.readouterr().out
    assert "R1@0.5    66.6667\n" in text and "mIoU_truncated  " in text
    written = json.loads(output.read_text())
    assert written["benchmark"] == "charades"
    assert written["metrics"]["R1@0.3"] == pytest.approx(200 / 3, abs=1e-12)
    assert written["counts"]["queries"] == 3
    assert written["files"]["predictions"] == str(CHARADES)
    assert list(output.parent.iterdir()) == [output]
    assert Result.read(output).metrics == written["metrics"]


def test_output_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code = run("charades", CHARADES, "--gt", CHARADES_GT, "--output", tmp_path / "file/m.json")
    assert code == 1 and "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing", CHARADES], "there is no benchmark 'nothing'; choose one of charades,"),
        ([], "name a benchmark"),
        (["charades", "absent.json", "--gt", CHARADES_GT], "absent.json: no such file"),
        (["charades", EXAMPLES, "--gt", CHARADES_GT], "is a folder"),
        (["charades", CHARADES, CHARADES], "it takes one prediction file, not 2"),
        (["charades", CHARADES, "--gt", CHARADES_GT, "--time-unit", "percent"], "no option time"),
        (["--compare", CHARADES], "at least two"),
        (["--compare", CHARADES, CHARADES], "not a metrics file"),
    ],
)
def test_errors(capsys, args, message):
    assert run(*args) == 1
    assert message in capsys.readouterr().err


def test_missing_annotation_says_where_it_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTIME_HOME", str(tmp_path))
    with pytest.raises(FileError, match="charades_sta_test.json: no such file; put the official"):
        score("charades", CHARADES)


def test_compare(capsys, tmp_path):
    for name, value in (("a", 50.0), ("b", 52.5)):
        Result("charades", {"mIoU": value}, {}, {"mIoU_truncated": 50}).write(tmp_path / name / "m")
    Result("charades", {"mIoU": 1.0, "R1@0.5": 2.0}, {}).write(tmp_path / "c" / "m")
    assert run("--compare", tmp_path / "a/m", tmp_path / "b/m") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["charades", "a/m", "b/m", "difference"]
    assert lines[2].split() == ["mIoU", "50.0000", "52.5000", "+2.5000"]
    assert lines[3].split() == ["mIoU_truncated", "(as", "run)", "50.0000", "50.0000", "+0.0000"]
    assert run("--compare", tmp_path / "a/m", tmp_path / "c/m", tmp_path / "a/m") == 0
    assert "R1@0.5" in capsys.readouterr().out
    other = Result("anet", {"mIoU": 1.0}, {})
    with pytest.raises(FileError, match="different benchmarks .anet, charades."):
        compare([("x", other), ("y", Result.read(tmp_path / "a/m"))])


def test_newest_results_are_taken(tmp_path):
    for age, name in enumerate(("new", "old")):
        path = tmp_path / "Charades-STA" / name / "results.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(CHARADES.read_bytes())
        os.utime(path, (10_000 - age, 10_000 - age))
    assert newest_predictions("charades", tmp_path).parent.name == "new"
    with pytest.raises(FileError, match="evaluate.sh CHECKPOINT anet"):
        newest_predictions("anet", tmp_path)


def test_report(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTIME_HOME", str(tmp_path))
    folder = tmp_path / "results" / "Charades-STA" / "my model"
    folder.mkdir(parents=True)
    (folder / "results.json").write_bytes(CHARADES.read_bytes())
    broken = tmp_path / "results" / "ANet-Caption" / "my model" / "results.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    # Nothing can be scored without the annotation, which the message names.
    assert main(["report", str(tmp_path / "results")]) == 1
    assert "charades_sta_test.json: no such file" in capsys.readouterr().err
    score("charades", CHARADES, CHARADES_GT).write(folder / "score.json")
    assert main(["report", str(tmp_path / "results"), "--output", str(tmp_path / "r.md")]) == 0
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
    assert rows[0][3] == "my model"
    assert rows[2][1:5] == ["Charades-STA", "R1@0.3", "66.67", "78.09"]
    assert "VideoMind-7B 73.5" in out and "skipped: " in err
    assert (tmp_path / "r.md").read_text() == out


def test_report_scores_again_when_predictions_are_newer(tmp_path, monkeypatch):
    folder = tmp_path / "Charades-STA" / "m"
    folder.mkdir(parents=True)
    Result("charades", {"mIoU": 1.0}, {"missing": 3}).write(folder / "metrics.json")
    predictions = folder / "results.json"
    predictions.write_bytes(CHARADES.read_bytes())
    kept = (folder / "metrics.json").stat().st_mtime
    os.utime(predictions, (kept - 10, kept - 10))
    assert reports.score_run("charades", predictions).metrics == {"mIoU": 1.0}
    assert "3 predictions are missing" in reports.build_report(tmp_path)
    os.utime(predictions, (kept + 10, kept + 10))
    monkeypatch.setattr(reports, "score", lambda *args: score(*args, CHARADES_GT))
    assert reports.score_run("charades", predictions).metrics["mIoU"] == pytest.approx(50)


@pytest.mark.parametrize(("size", "table"), [("1B", "released"), ("8B", "released_8b")])
def test_published_numbers_of_the_report_are_ours(shared, size, table):
    folders = {
        "charades": ("Charades-STA/results.json", "charades/charades_sta_test.json"),
        "anet": ("ANet-Caption/results.json", "anet/val_2.json"),
        "qvh": ("QVHighlight/results.json", "qvhighlights/val.json"),
        "nextgqa": ("NExtGQA/result.json", "nextgqa/gsub_test.json"),
    }
    for benchmark, (pred, gt) in folders.items():
        path = shared / f"predictions_{size}" / pred
        if not path.is_file():
            pytest.skip(f"the published {size} predictions are not on this machine")
        metrics = score(benchmark, path, shared / "annotations" / gt).metrics
        for name in find(benchmark).headline:
            shown = getattr(find(benchmark), table)[name]
            assert shown == pytest.approx(metrics[name], abs=0.00501), name
    for one in benchmarks().values():
        shown = getattr(one, table)
        assert not shown or set(shown) == set(one.headline), one.name


def script(path: str, *args: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "eval" / path, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("path", "pred", "gt", "row"),
    [
        ("charades-sta/charades_sta_eval_utils.py", CHARADES, CHARADES_GT, "mIoU      50.0000"),
        (
            "anet/anet_eval_utils.py",
            EXAMPLES / "anet/example_predictions.json",
            EXAMPLES / "anet/example_annotation.json",
            "mIoU    43.3333",
        ),
        (
            "qvhighlight/qvhighlight_eval_utils.py",
            EXAMPLES / "qvhighlights/example_predictions.json",
            EXAMPLES / "qvhighlights/example_annotation.json",
            "mIoU                47.5000",
        ),
        (
            "nextgqa/nextgqa_eval_utils.py",
            EXAMPLES / "nextgqa/example/result.json",
            EXAMPLES / "nextgqa/example",
            "Acc@GQA          66.6667",
        ),
        (
            "nextgqa/evaluate_nextgqa.py",
            EXAMPLES / "nextgqa/example/result.json",
            EXAMPLES / "nextgqa/example",
            "Acc@QA           66.6667",
        ),
    ],
)
def test_published_scripts(path, pred, gt, row, tmp_path):
    output = tmp_path / "m.json"
    done = script(path, "--pred_file", pred, "--gt_file", gt, "--output", output, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"scoring {pred}" in done.stdout and row in done.stdout
    assert Result.read(output).metrics


@pytest.mark.java
@pytest.mark.parametrize(
    ("path", "pred", "gt"),
    [
        ("youcook2_dvc/dvc/eval_dvc.py", "--pred_file", "--gt_file"),
        ("anet_dvc/metric/anet_dvc_eval_utils.py", "--log_path", "--data_path"),
    ],
)
def test_published_caption_scripts(path, pred, gt, tmp_path):
    folder, file = (
        ("youcook2_dvc", "predictions.json") if "youcook2" in path else ("anet", "dvc_log.txt")
    )
    predictions = EXAMPLES / folder / f"example_{file}"
    annotation = EXAMPLES / folder / "example_annotation.json"
    more = [] if "youcook2" in path else ["--task", "captioning"]
    done = script(path, pred, predictions, gt, annotation, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SODA_c  " in done.stdout


def test_split_script(tmp_path):
    done = script(
        "nextgqa/process_and_split.py",
        *("--pred_file", EXAMPLES / "nextgqa/example/result.json", "--out-dir", tmp_path / "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/result_gd.json").read_text())["202_3"] == [14.0, 18.0]
    qa = json.loads((tmp_path / "out/result_qa.json").read_text())
    assert qa["202_3"] == {"prediction": -1, "answer": 2}


def test_scoring_imports_neither_torch_nor_the_model():
    code = (
        "import sys; from distime.cli import main; main(sys.argv[1:]);"
        "print([m for m in ('torch', 'transformers', 'pycocoevalcap') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "score", "charades", CHARADES, "--gt", CHARADES_GT],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
