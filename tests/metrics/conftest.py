"""Helpers shared by the metric tests: where the published predictions are, and Java."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real annotations and the published 1B predictions."""
    if not SHARED.is_dir():
        pytest.skip("the published predictions (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture(params=["1B", "8B"])
def size(request) -> str:
    """Of the models whose published predictions are scored."""
    return request.param


@pytest.fixture
def reference(shared: Path, size: str) -> dict:
    """What the published scorer gives on the predictions of a size."""
    path = shared / f"reference_metrics_{size}.json"
    if not path.is_file():
        pytest.skip(f"the published {size} predictions are not on this machine")
    return json.loads(path.read_text())


@pytest.fixture
def write(tmp_path: Path):
    """Write a value as JSON (or a string as it is) and return the path."""

    def to_file(name: str, value: object) -> Path:
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def no_paraphrases(monkeypatch):
    """Give METEOR an empty paraphrase table, for cases that need none; it saves seconds."""

    def cut_table(source: Path, target: Path, captions: object) -> int:
        with gzip.open(target, "wb"):
            return 0

    monkeypatch.setattr("distime.metrics.meteor.cut_table", cut_table)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("java") is None:
        skip = pytest.mark.skip(reason="METEOR and the PTB tokenizer need java on the PATH")
        for item in items:
            if item.get_closest_marker("java"):
                item.add_marker(skip)
