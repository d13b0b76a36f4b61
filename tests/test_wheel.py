"""The wheel is whole: commands and scripts work from it, far from any checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from distime import __version__
from evaluate.conftest import INTERNVL_CHAT

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "requirements*.txt")
EXAMPLE = INTERNVL_CHAT / "data_example" / "charades"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the wheel; what it depends on is looked up in this one."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    ignored = shutil.ignore_patterns("__pycache__", "data_example", "results", "*.egg-info", "eval")
    shutil.copytree(
        INTERNVL_CHAT, source / "internvl_chat",
        ignore=lambda folder, names: ignored(folder, names) | (
            {"data"} & set(names) if Path(folder).name == "internvl_chat" else set()
        ),
    )  # fmt: skip
    for path in (path for pattern in SOURCES for path in ROOT.glob(pattern)):
        shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *options, "--no-build-isolation", "--wheel-dir", root, source], check=True
    )
    home = root / "an environment"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    (wheel,) = root.glob("distime-*.whl")
    subprocess.run([*pip, "--python", python, "install", *options, wheel], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def run(installed, tmp_path, monkeypatch):
    """Run a command of the environment in an empty folder whose path has a blank."""
    folder = tmp_path / "an empty folder"
    folder.mkdir()
    for name in ("PYTHONPATH", "DISTIME_HOME", "GPUS"):
        monkeypatch.delenv(name, raising=False)

    def run(*words, code=0, **environment):
        done = subprocess.run(
            [*map(str, words)], cwd=folder, capture_output=True, text=True, check=False,
            env=os.environ | environment,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    run.folder, run.python, run.distime = folder, installed, installed.with_name("distime")
    return run


def test_commands(run):
    assert run(run.distime, "--version") == f"distime {__version__}\n"
    assert run(run.python, "-m", "distime", "--version") == f"distime {__version__}\n"
    for command, flag in (
        ("train", "--meta_path"),
        ("evaluate", "--video-root"),
        ("demo", "--port"),
    ):
        assert flag in run(run.distime, command, "--help")
    where = run(run.python, "-c", "import distime; print(distime.__file__)")
    assert where.startswith(str(run.python.parents[1]))


def test_score(run):
    truth = EXAMPLE / "example_annotation.json"
    out = run(
        run.distime, "score", "charades", EXAMPLE / "example_predictions.json", "--gt", truth,
        "--output", "metrics.json",
    )  # fmt: skip
    assert "mIoU" in out and (run.folder / "metrics.json").is_file()


def test_defaults_lie_below_the_current_folder(run):
    assert str(run.folder / "results") in run(run.distime, "score", "charades", code=1)
    (run.folder / "checkpoint").mkdir()
    (run.folder / "checkpoint" / "config.json").write_text("{}")
    words = (run.distime, "evaluate", "charades", "--checkpoint", "checkpoint")
    assert f"--annotation {run.folder / 'data_example'}" in run(*words, code=1)
    assert "--annotation /elsewhere/data_example" in run(*words, code=1, DISTIME_HOME="/elsewhere")


def test_launch_scripts(run):
    """They are in the wheel, start this environment's Python, and name no folder of the package."""
    code = "from distime.paths import scripts; print(scripts())"
    scripts = Path(run(run.python, "-c", code).strip())
    assert "distime evaluate" in run("sh", scripts / "evaluate.sh", "--help")
    assert "distime annotate" in run("sh", scripts / "annotate.sh", "--help")
    words = ("nowhere", "--out", "out", "--stages", "selection")
    out = run("sh", scripts / "annotate.sh", *words, code=1, PYTHON=str(run.python))
    assert "VIDEOS nowhere: no such folder" in out
    out = run("sh", scripts / "evaluate.sh", "nowhere", "charades", code=1, PYTHON=str(run.python))
    assert "--checkpoint nowhere" in out
    spy = run.folder / "python"
    spy.write_text(
        "#!/bin/sh\n"
        'case "$2" in *device_count*) echo 0 ;; *is_available*) exit 1 ;;\n'
        '*) printf "%s\\n" "$@" ;; esac\n'
    )
    spy.chmod(0o755)
    (recipe,) = (scripts / "shell" / "distime").glob("*_1b_*_finetune_lora.sh")
    words = run("sh", recipe, PYTHON=str(spy)).splitlines()
    flags = dict(zip(words, words[1:], strict=False))
    assert "distime.train.finetune" in words
    for flag in ("--model_name_or_path", "--meta_path", "--output_dir"):
        assert flags[flag].startswith("./")
    assert all((scripts / f"zero_stage{stage}_config.json").is_file() for stage in (1, 2, 3))


METRIC_SCRIPTS = sorted((INTERNVL_CHAT / "eval").rglob("*.py"))
WITHOUT_DISTIME = """
import runpy, sys
script, without, dependencies = sys.argv[1:]
sys.path = [path for path in sys.path if path != without] + [dependencies]
sys.argv = [script, "--help"]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("script", METRIC_SCRIPTS, ids=lambda path: path.stem)
def test_metric_scripts_run_from_a_checkout_without_an_install(script, run):
    (site,) = run.python.parents[1].glob("lib/python*/site-packages")
    dependencies = sysconfig.get_path("purelib")
    words = (run.python, "-I", "-c", WITHOUT_DISTIME, script, site, dependencies)
    assert "--pred_file" in run(*words)
