"""Packaging: dependencies are listed once, in the requirements files."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SCRIPTS = (
    "evaluate.sh",
    "annotate.sh",
    "processes.sh",
    "shell/distime/*.sh",
    "zero_stage*_config.json",
)


def requirements(name: str) -> list[str]:
    """Return the requirement lines of a requirements file, without comments."""
    lines = (ROOT / name).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]


class BuildWithScripts(build_py):
    """Copies the launch scripts into the package, where `distime.paths.scripts` finds them."""

    def run(self) -> None:
        """Build the package, then copy; an editable install has the scripts in its checkout."""
        super().run()
        if self.editable_mode:
            return
        source = ROOT / "internvl_chat"
        for script in (path for pattern in SCRIPTS for path in source.glob(pattern)):
            target = Path(self.build_lib, "distime", "scripts", script.relative_to(source))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(script, target)


setup(
    cmdclass={"build_py": BuildWithScripts},
    install_requires=requirements("requirements.txt"),
    extras_require={
        "gpu": requirements("requirements-gpu.txt"),
        "demo": requirements("requirements-demo.txt"),
        "serve": requirements("requirements-serve.txt"),
        "lmms-eval": requirements("requirements-lmms-eval.txt"),
        "test": requirements("requirements-test.txt"),
    },
)
