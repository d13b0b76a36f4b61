"""Help, completion and mistakes wait for no library that takes seconds to import.

What was imported is looked at, not how long it took.
"""

import json
import subprocess
import sys

import pytest

from distime.cli import COMMANDS

HEAVY = ("torch", "transformers", "huggingface_hub", "matplotlib", "gradio")
# Runs commands one after the other in one process, and says which first imported what.
PROGRAM = """
import contextlib, io, json, sys
from distime.cli import main
heavy = set(sys.argv[2].split(","))
outcomes = []
for argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code
    outcomes.append([code, sorted(heavy & sys.modules.keys()), out.getvalue(), err.getvalue()])
    heavy -= sys.modules.keys()
print(json.dumps(outcomes))
"""


def outcomes(commands, folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands), ",".join(HEAVY)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return list(zip(commands, json.loads(done.stdout), strict=True))


def test_help_and_completion(tmp_path):
    commands = [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)]
    commands += [["completion", shell] for shell in ("bash", "zsh", "fish")]
    for command, (code, imported, out, _) in outcomes(commands, tmp_path):
        assert (code, imported) == (0, []), command
        assert out, command


@pytest.fixture
def folder(tmp_path):
    """With a checkpoint by its looks and two folders that are none."""
    for name in ("checkpoint", "empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    (tmp_path / "full" / "notes.txt").write_text("not to be deleted")
    (tmp_path / "queries.json").write_text("[]")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    (tmp_path / "captions.jsonl").write_text('{"video": "b.mp4", "text": "a dog"}')
    return tmp_path


ANNOTATORS = ["--captioner", "file:captions.jsonl", "--locator", "told:file-captions"]
CHARADES = ["evaluate", "charades", "--checkpoint", "checkpoint"]
MISTAKES = [
    ([], 2, "COMMAND"),
    (["grnd"], 2, "grnd"),
    *(([name, "--no-such-flag"], 2, "error: ") for name in COMMANDS if name != "train"),
    (["train", "--no_such_flag", "1"], 2, "no_such_flag"),
    (["train"], 2, "--"),
    (["evaluate", "charade", "--checkpoint", "checkpoint"], 1, "charades"),
    (["evaluate", "charades", "--checkpoint", "nowhere"], 1, "--checkpoint nowhere"),
    ([*CHARADES, "--batch-size", "0"], 1, "--batch-size"),
    ([*CHARADES, "--batch-size", "x"], 2, "--batch-size"),
    ([*CHARADES, "--device", "gpu"], 1, "--device gpu"),
    ([*CHARADES, "--dtype", "int3"], 2, "--dtype"),
    ([*CHARADES, "--annotation", "x"], 1, "annotation x"),
    (
        [*CHARADES, "--annotation", "queries.json",
         "--video-root", "nowhere"],
        1, "--video-root nowhere",
    ),
    (["evaluate", "nextgqa", "3", "--checkpoint", "checkpoint"], 1, "stage 3"),
    (["convert", "nowhere", "out"], 1, "nowhere"),
    (["convert", "checkpoint", "checkpoint"], 1, "checkpoint"),
    (["convert", "checkpoint", "full"], 1, "--overwrite"),
    (["convert", "checkpoint", "full", "--overwrite"], 1, "holds no checkpoint"),
    (["convert", "checkpoint", "out", "--to", "theirs"], 2, "--to"),
    (["merge", "nowhere", "empty", "out"], 1, "nowhere"),
    (["merge", "checkpoint", "nowhere", "out"], 1, "nowhere"),
    (["merge", "checkpoint", "empty", "full"], 1, "--overwrite"),
    (["ground", "v.mp4", "a query", "--checkpoint", "nowhere"], 1, "nowhere"),
    (["ground", "v.mp4", "query", "--checkpoint", "checkpoint", "--num-frames", "0"], 1, "frames"),
    (["caption", "v.mp4", "--checkpoint", "nowhere"], 1, "nowhere"),
    (["chat", "v.mp4", "a question", "--checkpoint", "nowhere"], 1, "nowhere"),
    (["score", "charades", "nowhere.json"], 1, "no such file"),
    (["score", "charade"], 1, "charade"),
    (["report", "nowhere"], 1, "nowhere"),
    (["quickstart", "--seed", "x"], 2, "--seed"),
    (["annotate", "nowhere", "--out", "o", "--captioner", "file:c.jsonl"], 1, "--locator: give"),
    (["annotate", "full", "--out", "o", *ANNOTATORS], 1, "no video below it"),
    (["annotate", "clips", "--out", "o", *ANNOTATORS], 1, "it is about other videos"),
]  # fmt: skip


def test_mistakes(folder):
    commands = [argv for argv, *_ in MISTAKES]
    results = outcomes(commands, folder)
    for (argv, expected, named), (_, (code, imported, _, err)) in zip(
        MISTAKES, results, strict=True
    ):
        assert (code, imported) == (expected, []), (argv, err)
        assert named in err, (argv, err)
