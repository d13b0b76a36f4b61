"""One benchmark, one file: nothing else of the package knows a benchmark by its name."""

import ast
import re
from pathlib import Path

import pytest

import distime
from distime.benchmarks import benchmarks, official_data

PACKAGE = Path(distime.__file__).parent
NAMES = sorted({*benchmarks(), *(set(official_data()) - {"et_instruct"})})
TITLES = sorted({one.title for one in benchmarks().values()})

# What stands for something else there.
ALLOWED = {
    "longvideobench": ["processing/sampling.py"],  # a rule to choose frames, known by that name
}


def words(path: Path) -> str:
    """The names and texts in a file's code: no comments, which may say where something is from."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        for field in ("id", "attr", "name", "arg", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found.append(value)
    return "\n".join(found)


@pytest.mark.parametrize("name", [*NAMES, *TITLES])
def test_no_other_file_names_a_benchmark(name):
    home = {one.name: Path(one.__module__.rsplit(".")[-1] + ".py") for one in benchmarks().values()}
    own = {str(PACKAGE / "benchmarks" / path) for path in home.values()}
    pattern = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    naming = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if str(path) not in own and pattern.search(words(path))
    ]
    assert naming == ALLOWED.get(name.lower(), [])


def test_every_benchmark_says_what_it_is():
    for name, one in benchmarks().items():
        assert one.name == name and one.title and one.headline and one.annotation, name
        assert (one.convert is None) or (one.convert.__doc__), name
