"""What other libraries' releases were tested: ranges, locks, and the word about others."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from distime import __version__, versions
from distime.errors import DisTimeError

ROOT = Path(__file__).resolve().parents[1]


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in text if line and not line.startswith("#")]


def pins(kind: str) -> dict[str, Requirement]:
    return {pin.name: pin for pin in map(Requirement, lines(f"requirements-lock-{kind}.txt"))}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ------------------------------------------------------------------------------------ locks


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("cpu", ["requirements.txt", "requirements-test.txt"]),
        ("cuda", ["requirements.txt", "requirements-test.txt"]),
        ("demo", ["requirements.txt", "requirements-test.txt", "requirements-demo.txt"]),
    ],
)
def test_a_lock_pins_everything_within_the_ranges(kind, files):
    locked = pins(kind)
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in locked.values())
    for requirement in (Requirement(line) for name in files for line in lines(name)):
        pin = locked[normal(requirement.name)]
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"


def test_locks_agree():
    cpu, cuda, demo = (pins(kind) for kind in ("cpu", "cuda", "demo"))
    assert all(str(cuda[name].specifier) == str(pin.specifier) for name, pin in cpu.items())
    only = cuda.keys() - cpu.keys()
    assert {"triton", "nvidia-nccl-cu13", "nvidia-cublas"} <= only
    assert all(re.match("nvidia|cuda|triton", name) for name in only)
    different = {n for n, pin in cpu.items() if str(demo[n].specifier) != str(pin.specifier)}
    assert different == {"pillow"}  # Gradio asks for an older one


def test_the_locks_are_whole():
    """What a locked package asks for is locked, too: checked on those that are installed."""
    from importlib import metadata

    locked = pins("cpu")
    for pin in locked.values():
        if pin.marker and not pin.marker.evaluate():
            continue
        try:
            needed = metadata.requires(pin.name) or []
        except metadata.PackageNotFoundError:
            continue
        if metadata.version(pin.name).split("+")[0] != str(pin.specifier).removeprefix("=="):
            continue  # another release, which may ask for others
        for one in map(Requirement, needed):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                assert normal(one.name) in locked, f"{pin} needs {one}"


def test_what_breaks_between_minor_releases_has_an_upper_bound():
    for requirement in map(Requirement, lines("requirements.txt")):
        operators = {part.operator for part in requirement.specifier}
        assert operators <= {">=", "<"} and ">=" in operators
        assert "<" in operators or requirement.name == "packaging"


# ------------------------------------------------------------------------------- the message


@pytest.fixture
def installed(monkeypatch):
    """Pretend that other releases are installed."""
    found = {}
    real = versions.metadata.version

    def version(name):
        if found.get(name) == "absent":
            raise versions.metadata.PackageNotFoundError(name)
        return found.get(name) or real(name)

    monkeypatch.setattr(versions.metadata, "version", version)
    monkeypatch.delenv("RANK", raising=False)
    return found


RANGES = {r.name: r for r in map(Requirement, lines("requirements.txt"))}


def bounds(name):
    parts = {part.operator: part.version for part in RANGES[name].specifier}
    return parts[">="], parts["<"]


@pytest.mark.parametrize("name", versions.WATCHED)
def test_a_library_outside_is_named_with_its_range_and_the_mend(installed, name, caplog):
    floor, ceiling = bounds(name)
    for version in (f"{ceiling}.0", f"{ceiling}.dev0", "99.1", "0.1.2", f"{floor}.dev1"):
        installed[name] = version
        caplog.clear()
        versions.warn_about_untested()
        (message,) = [record.getMessage() for record in caplog.records]
        assert f"{name} {version}" in message
        assert all(bound in message for bound in (floor, ceiling))
        assert f"pip install '{name}>={floor},<{ceiling}'" in message


@pytest.mark.parametrize("name", versions.WATCHED)
def test_too_old_is_an_error_and_too_new_is_not(installed, name):
    floor, ceiling = bounds(name)
    for version in (f"{ceiling}.1", floor, f"{floor}.0+cpu", "absent"):
        installed[name] = version
        versions.refuse_too_old()
    installed[name] = "0.9"
    with pytest.raises(DisTimeError, match=f"{name} 0.9.*pip install"):
        versions.refuse_too_old()


def test_what_is_locked_is_not_remarked_on(installed, caplog):
    for name in versions.WATCHED:
        installed[name] = str(pins("cpu")[name].specifier).removeprefix("==")
    versions.warn_about_untested()
    versions.refuse_too_old()
    assert not caplog.records


def test_one_process_of_several_says_it(installed, caplog, monkeypatch):
    installed["transformers"] = "99.0"
    monkeypatch.setenv("RANK", "1")
    versions.warn_about_untested()
    assert not caplog.records


def test_an_installed_package_has_the_ranges_in_its_metadata(monkeypatch):
    here = {r.name: r.specifier for r in map(Requirement, versions.requirements())}
    monkeypatch.setattr(versions.paths, "checkout", lambda: None)
    monkeypatch.setattr(versions.metadata, "requires", lambda name: [
        "torch<2.14,>=2.11", "transformers<5.25,>=5.23", 'pytest>=8; extra == "test"'
    ])  # fmt: skip
    there = {r.name: r.specifier for r in map(Requirement, versions.requirements())}
    assert {"torch", "transformers"} <= here.keys() & there.keys()
    monkeypatch.setattr(versions.metadata, "version", lambda name: "99")
    assert [line.split()[0] for line in versions.untested()] == ["torch", "transformers"]


def test_importing_says_it(tmp_path):
    """As a person sees it: a made-up release is found first on the path."""
    for name, version in (("transformers", "99.0"), ("peft", "0.1")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    path = f"{tmp_path}{os.pathsep}{ROOT / 'internvl_chat'}"
    code = "import sys, distime; assert 'torch' not in sys.modules; import distime.model.tokens"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    first, second, *rest = done.stderr.splitlines()
    assert "transformers 99.0" in first and "pip install 'transformers>=" in first
    assert "peft 0.1" in second
    assert "VersionError" in rest[-1] and "peft 0.1" in rest[-1] and done.returncode == 1


def test_the_version_is_said_everywhere():
    done = [
        subprocess.run(
            [sys.executable, *words, "--version"], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "internvl_chat")},
        ).stdout
        for words in (["-m", "distime"], ["-m", "distime.cli"])
    ]  # fmt: skip
    assert done == [f"distime {__version__}\n"] * 2


# ------------------------------------------------------------------------------- what is imported

DISTRIBUTIONS = {
    "PIL": "pillow",
    "prometheus_client": "prometheus-client",
    "huggingface_hub": "huggingface-hub",
    "yaml": "pyyaml",
}
OPTIONAL = {"gradio", "liger_kernel", "flash_attn", "bitsandbytes", "decord", "cv2", "torchcodec"}
OPTIONAL |= {"lmms_eval"}


def test_whatever_the_package_imports_is_a_requirement():
    """A library that another one happens to bring is gone with that one's next release."""
    names_in = lambda file: {normal(Requirement(line).name) for line in lines(file)}  # noqa: E731
    required, served = names_in("requirements.txt"), names_in("requirements-serve.txt")
    for path in (ROOT / "internvl_chat" / "distime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for module in {name.split(".")[0] for name in names}:
                if module in {"distime", *sys.stdlib_module_names, *OPTIONAL}:
                    continue
                named = required | (served if {"serve", "serve.py"} & set(path.parts) else set())
                assert normal(DISTRIBUTIONS.get(module, module)) in named, f"{path}: {module}"
