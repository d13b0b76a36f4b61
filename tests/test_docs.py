"""What the documents say is true: their commands run, their links and flags exist.

Every shell and Python fence of README.md and docs/*.md stands below one of two comments, which no
page shows:

    <!-- runnable -->               run here, as it stands
    <!-- runnable; not run: distime demo (serves until stopped), GPUS=8 (eight GPUs) -->
                                    run but for the lines that begin so
    <!-- not run: reason -->        needs a GPU, published weights, a network, or minutes

A document's fences run in order in one folder that looks like the repository's root, with a tiny
checkpoint, synthetic videos and small annotations under the names that the documents use. A Python
fence that begins with `# NAME.py` is saved under that name as well.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from answering import write_answering_checkpoint
from distime.benchmarks import Result
from distime.benchmarks.charades import synthetic_queries, synthetic_truth
from distime.benchmarks.nextgqa import split_file
from distime.cli import COMMANDS, all_parsers, main
from distime.model.modeling import TimeMixin
from distime.toy.synthetic import make_video, write_video

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- (?P<marker>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.S
)
LANGUAGES = ("sh", "bash", "python")
MARKER = re.compile(r"runnable(; not run: (?P<lines>.+ \(.+\)))?|not run: \S.+")


class Fence(NamedTuple):
    """A fenced block of a document; `line` is where its content begins."""

    document: Path
    line: int
    language: str
    marker: str
    text: str

    @property
    def is_runnable(self) -> bool:
        return self.marker.startswith("runnable")

    @property
    def left_out(self) -> list[str]:
        lines = MARKER.fullmatch(self.marker)["lines"] or ""
        return re.findall(r"(?:^|, )(.+?) \([^)]*\)", lines)

    def lines(self) -> list[str]:
        """The commands of a shell fence, those over several lines joined."""
        joined = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [line for line in joined if line.strip() and not line.startswith("#")]


def fences(document: Path) -> list[Fence]:
    text = document.read_text(encoding="utf-8")
    return [
        Fence(
            document,
            text.count("\n", 0, found.start("text")) + 1,
            found["language"],
            found["marker"] or "",
            found["text"],
        )
        for found in FENCE.finditer(text)
        if found["language"] in LANGUAGES
    ]


FENCES = {document: fences(document) for document in DOCUMENTS}
RUNNABLE = [d for d in DOCUMENTS if any(fence.is_runnable for fence in FENCES[d])]


def name(value) -> str:
    return value.name if isinstance(value, Path) else str(value)


# ----------------------------------------------------------------------------------- running


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder like the repository's root, with all that the documents' commands name."""
    root = tmp_path_factory.mktemp("docs") / "repository"
    chat = root / "internvl_chat"
    ignored = shutil.ignore_patterns("__pycache__", "data", "results", "*.egg-info")
    # `data` of the package itself is code.
    shutil.copytree(ROOT / "internvl_chat", chat, ignore=lambda folder, names: (
        {n for n in ignored(folder, names) if n != "data" or Path(folder).name != "distime"}
    ))  # fmt: skip
    questions = ("the person closes the door", "he enters")
    write_answering_checkpoint(root / "CHECKPOINT", questions)
    for path in ("checkpoint/DisTime/DisTime-InternVL2_5-1B", "DisTime-InternVL2_5-1B"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(root / "CHECKPOINT", root / path)
    videos = chat / "data" / "charades"
    videos.mkdir(parents=True)
    specs = [make_video(0)]
    write_video(specs[0], videos)
    for path in ("video.mp4", "a.mp4", "b.mp4", "c.mp4", "clip.mp4", "data/videos/x.mp4"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / specs[0].file_name, root / path)

    examples = chat / "data_example"
    write_json(examples / "charades" / "test_float.json", synthetic_queries(specs))
    truth = synthetic_truth(specs)
    for path in (examples / "charades", root, root / "GT.json"):
        write_json(path if path.suffix else path / "charades_sta_test.json", truth)
    predictions = {
        spec.name: {e.query: {"start": e.start, "end": e.end} for e in spec.events}
        for spec in specs
    }
    write_json(root / "results.json", predictions)
    write_json(chat / "results" / "Charades-STA" / "mine" / "results.json", predictions)
    for path in (examples / "nextgqa" / "example").iterdir():
        shutil.copy(path, examples / "nextgqa")
    split_file(examples / "nextgqa" / "result.json", root)
    for path in ("A", "B"):
        (root / path).mkdir()
        Result("charades", {"mIoU": 50.0}, {}).write(root / path / "metrics.json")

    event = specs[0].events[0]
    turns = [("human", f"<video>\n{event.query}"), ("gpt", "At <TIME_STAMP>.")]
    item = {
        "video": "x.mp4",
        "tgt": [event.start, event.end],
        "conversations": [{"from": who, "value": words} for who, words in turns],
    }
    (root / "data" / "train.jsonl").write_text(json.dumps(item) + "\n")
    write_json(
        root / "data" / "meta.json", {"own": {"root": "videos", "annotation": "train.jsonl"}}
    )

    for path in (".local/share/bash-completion/completions", ".config/fish/completions", "bin"):
        (root / path).mkdir(parents=True)
    commands = {
        "distime": f'"{sys.executable}" -m distime.cli "$@"',
        "python": f'"{sys.executable}" "$@"',
    }
    for command, line in commands.items():
        (root / "bin" / command).write_text(f"#!/bin/sh\nexec {line}\n")
        (root / "bin" / command).chmod(0o755)
    return root


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_every_fence_says_whether_it_runs():
    for document in DOCUMENTS:
        for fence in FENCES[document]:
            place = f"{document.name}:{fence.line}"
            assert MARKER.fullmatch(fence.marker), f"{place}: no marker above it, see test_docs.py"
            for beginning in fence.left_out:
                found = any(line.startswith(beginning) for line in fence.lines())
                assert found, f"{place}: no line begins with {beginning!r}"


@pytest.mark.slow
@pytest.mark.parametrize("document", RUNNABLE, ids=name)
def test_commands_run(document, prepared, tmp_path, monkeypatch, capfd):
    root = tmp_path / "repository"
    shutil.copytree(prepared, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DISTIME_HOME", str(root / "internvl_chat"))
    # A model of random weights would not stop before the default of 1,000 tokens.
    generate = TimeMixin.generate
    monkeypatch.setattr(
        TimeMixin, "generate", lambda *a, **k: generate(*a, **k | {"max_new_tokens": 12})
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # few items: processes take longer to start
    names = {"__name__": "__main__"}
    for fence in FENCES[document]:
        if not fence.is_runnable:
            continue
        place = f"{document.name}:{fence.line}"
        if fence.language == "python":
            if named := re.match(r"# (\w+\.py)", fence.text):
                Path(named[1]).write_text(fence.text)
            else:
                exec(compile(fence.text, place, "exec"), names)
            continue
        for line in fence.lines():
            if not line.startswith(tuple(fence.left_out)):
                code = run_line(line, root)
                assert code == 0, f"{place}: {line}\n{capfd.readouterr().err}"


def run_line(line: str, root: Path) -> int:
    """Run a command: `distime` here, which saves importing torch each time, all else by a shell."""
    words = shlex.split(line, comments=True)
    if words[0] == "distime" and not set(words) & {">", ">>", "|"} and "*" not in line:
        return main(words[1:])
    environment = os.environ | {
        "HOME": str(root),
        "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(root / "internvl_chat"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(["bash", "-ec", line], cwd=root, env=environment, timeout=600)
    return done.returncode


# ------------------------------------------------------------------------------ flags and links


def flags(command: str) -> set[str]:
    """The flags of a sub-command, and of its own sub-commands."""
    found = set().union(*map(options, all_parsers(command)))
    return found | (training_flags() if command == "train" else set())


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


def training_flags() -> set[str]:
    from transformers import HfArgumentParser

    from distime.train.arguments import DataArguments, ModelArguments, TrainArguments
    from distime.train.published_flags import TABLE

    ours = options(HfArgumentParser((ModelArguments, DataArguments, TrainArguments)))
    return ours | {f"--{name}" for name in TABLE}


FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Of other programs: their own tests know them.
OTHERS = {
    "--local-dir": "hf download",
    "--nproc_per_node": "torchrun",
    "--nnodes": "torchrun",
    "--nodes": "sbatch",
    "--no-deps": "pip",
    "--model": "lmms_eval",
    "--model_args": "lmms_eval",
    "--tasks": "lmms_eval",
    "--batch_size": "lmms_eval",
    "--output_path": "lmms_eval",
}


@pytest.fixture(scope="module")
def known():
    """Every flag of every program of the repository, by program."""
    programs = {command: flags(command) for command in COMMANDS}
    for folder in ("internvl_chat/eval", "benchmarks"):
        for script in (ROOT / folder).rglob("*.py"):
            text = script.read_text(encoding="utf-8")
            programs[script.name] = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', text))
    return programs


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_flags_exist(document, known):
    text = re.sub(r"\\\n\s*", "", document.read_text(encoding="utf-8"))
    anywhere = set().union(*known.values(), OTHERS, {"--help", "--version"})
    missing = sorted(set(FLAG.findall(text)) - anywhere)
    assert not missing, f"{document.name} names flags that no program has: {missing}"
    for found in re.finditer(r"distime (\w+)([^\n`|#]*)", text):
        command, rest = found.groups()
        if command in known:
            unknown = set(FLAG.findall(rest)) - known[command] - {"--help"}
            assert not unknown, f"{document.name}: distime {command} has no {sorted(unknown)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_exist(document):
    text = document.read_text(encoding="utf-8")
    named = {
        word
        for code in re.findall(r"`([^`\n]+)`", text) + [f.text for f in FENCES[document]]
        for word in re.findall(r"(?:^|[\s(])distime ([a-z]+)\b", code)
        if "import" not in code
    }
    assert named <= COMMANDS.keys()


MADE = ("internvl_chat/data/", "internvl_chat/results/", "checkpoint/")
"""Folders that hold what is not part of the repository."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_and_paths_exist(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"\w+:", target):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
    paths = r"(?<![\w/.-])((?:docs|tests|benchmarks|internvl_chat|distime)/[\w./-]*[\w/])"
    for path in re.findall(paths, text):
        # The worked example of a new benchmark names a file that is not there yet.
        if not f"{path}/".startswith(MADE) and "tacos" not in path:
            places = [ROOT / path, ROOT / "internvl_chat" / path]
            assert any(place.exists() for place in places), f"{document.name}: {path}"
