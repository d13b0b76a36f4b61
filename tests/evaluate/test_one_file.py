"""One benchmark, one file: nothing else of the package knows a benchmark by its name."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import distime
from distime.benchmarks import benchmarks, official_data

PACKAGE = Path(distime.__file__).parent
NAMES = sorted({*benchmarks(), *(set(official_data()) - {"et_instruct"})})
TITLES = sorted({one.title for one in benchmarks().values()})

ALLOWED = {
    (
        "anet",
        "benchmarks/anet_dvc.py",
    ),  # the same videos and annotation, which that one reads
    ("charades", "benchmarks/mvbench.py"),  # a folder of its official videos is called so
    # Three older sets again, whose names its own and its owner's files carry.
    ("charades", "benchmarks/timelens.py"),
    ("qvhighlight", "benchmarks/timelens.py"),
}
"""What stands for something else there."""


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


def named_in(text: str) -> set[str]:
    """The benchmarks that a text names, also as part of an identifier or of a path.

    Of names that contain each other the longest counts. A short one is a whole word between
    underscores and other signs: "planet" names none.
    """
    found = set()
    for name in sorted({one.lower() for one in (*NAMES, *TITLES)}, key=len, reverse=True):
        inner = re.escape(name).replace("_", "_?")
        pattern = inner if len(name) > 5 else rf"(?<![a-zA-Z0-9]){inner}(?![a-zA-Z0-9])"
        text, hits = re.subn(pattern, " ", text, flags=re.IGNORECASE)
        if hits:
            found.add(name)
    return found


def test_names_are_found_in_identifiers():
    assert named_in("longvideobench_frame_indices") == {"longvideobench"}
    assert named_in("class MyYouCook2Dvc") == {"youcook2_dvc"}
    assert named_in("ANET_CAPTIONING") == {"anet"}
    assert named_in("timelens_anet") == {"timelens_anet"}
    assert named_in("planet") == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_file_names_no_other_benchmark(path):
    own = {
        name
        for one in benchmarks().values()
        if Path(inspect.getfile(one)) == path
        for name in (one.name, one.title.lower(), one.prepared_as)
    }
    here = path.relative_to(PACKAGE).as_posix()
    naming = {name for name in named_in(words(path)) if (name, here) not in ALLOWED}
    assert naming <= own, here


def test_every_benchmark_says_what_it_is():
    for name, one in benchmarks().items():
        assert one.name == name and one.title and one.headline and one.annotation, name
        assert (one.convert is None) or (one.convert.__doc__), name
