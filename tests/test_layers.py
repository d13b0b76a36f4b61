"""Imports run one way, and nothing outside `backbones/` names a backbone."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import distime
from distime.backbones import BACKBONES

ROOT = Path(distime.__file__).parent
LAYERS = (
    "model",
    "backbones",
    "processing",
    "engine",
    "data",
    "benchmarks",
    "train",
    "evaluate",
    "annotate",
    "serve",
    "show",
    "toy",
    "cli",
)
"""From the bottom up; each may import from itself, those before it, and what is everybody's."""
UPWARD = {
    # A notebook shows an answer as its timeline.
    ("processing/answers.py", "show"),
    # A run ends with its page.
    ("evaluate/runner.py", "show"),
    # What a run's flags are is checked before a benchmark is asked for its queries.
    ("benchmarks/base.py", "evaluate"),
    # The toy's truth is written as a benchmark's annotation.
    ("benchmarks/charades.py", "toy"),
    # The demo's examples.
    ("serve/demo/page.py", "toy"),
    ("serve/demo/responder.py", "show"),
}
"""Files that reach upward all the same, each for its reason."""
EVERYBODYS = {"errors", "files", "paths", "versions"}


def imported(file: Path) -> set[str]:
    """First names below `distime` of all that a module imports, wherever it does so."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("distime.")}


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_one_way(package):
    above = set(LAYERS[LAYERS.index(package) + 1 :])
    for file in sorted((ROOT / package).rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        upward = {(name, other) for other in imported(file) & above} - UPWARD
        assert not upward, f"{name} imports distime.{', distime.'.join(o for _, o in upward)}"


def test_the_lowest_layers_know_nobody():
    known = EVERYBODYS | {"metrics", "values"}
    for file in [ROOT / f"{name}.py" for name in EVERYBODYS] + sorted((ROOT / "metrics").iterdir()):
        if file.suffix == ".py":
            assert imported(file) <= known, file.name


def test_a_backbone_is_named_in_its_own_place_alone():
    """Tests on the name or class of a backbone belong behind the seam."""
    names = set(BACKBONES)
    for file in sorted(ROOT.rglob("*.py")):
        if "backbones" in file.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                named = constants & names
                assert not named, f"{file.relative_to(ROOT)}:{node.lineno} asks for {named}"


def test_names_mean_one_thing():
    """The parts that every backbone, benchmark or command has are named alike; all else once."""
    parts = {"__init__", "__main__", "base", "config", "model", "registry", "template"}
    files = [file for file in ROOT.rglob("*.py") if file.stem not in parts]
    stems = Counter(file.stem for file in files if file.parent.name != "cli")
    assert [name for name, count in stems.items() if count > 1] == []
    classes = Counter(
        node.name
        for file in ROOT.rglob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in classes.items() if count > 1] == []
