"""Imports run one way, and nothing outside `backbones/` names a backbone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import distime
from distime.backbones import BACKBONES

ROOT = Path(distime.__file__).parent
BELOW = {
    # package -> packages that it may import from (beside itself and the modules below)
    "model": set(),
    "backbones": {"model"},
    "processing": {"model", "backbones", "timeline"},
    "engine": {"model", "backbones", "processing"},
}
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


@pytest.mark.parametrize("package", BELOW)
def test_imports_run_one_way(package):
    allowed = BELOW[package] | EVERYBODYS | {package}
    for file in sorted((ROOT / package).rglob("*.py")):
        upward = imported(file) - allowed
        assert not upward, f"{file.relative_to(ROOT)} imports distime.{', distime.'.join(upward)}"


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
