"""Packaging: dependencies are listed once, in the requirements files."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """Return the requirement lines of a requirements file, without comments."""
    lines = (ROOT / name).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]


setup(
    install_requires=requirements("requirements.txt"),
    extras_require={
        "gpu": requirements("requirements-gpu.txt"),
        "demo": requirements("requirements-demo.txt"),
        "test": requirements("requirements-test.txt"),
    },
)
