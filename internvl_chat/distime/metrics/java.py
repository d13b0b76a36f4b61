"""The Java programs that pycocoevalcap carries: the PTB tokenizer and METEOR 1.5.

They are run as plain processes; none of pycocoevalcap's own code is imported.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from distime.files import FileError

PTB_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor/meteor-1.5.jar"
PARAPHRASES = "meteor/data/paraphrase-en.gz"

# For runs of seconds the optimising compiler costs more than it gains (measured: 14 against 8 CPU
# seconds for 44 thousand alignments), and one collector thread is enough.
OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8")


def java_command(memory: str) -> list[str]:
    """Return the start of a command line: ``java`` with at most ``memory`` of heap.

    Raises:
        FileError: there is no Java.
    """
    command = shutil.which("java")
    if command is None:
        raise FileError(
            "METEOR and the PTB tokenizer need Java, and there is no `java` on the PATH; install "
            "a runtime (for instance `apt-get install openjdk-17-jre-headless`)."
        )
    return [command, f"-Xmx{memory}", *OPTIONS]


def carried_file(name: str) -> Path:
    """Return the path of a file of pycocoevalcap, found without importing it.

    Raises:
        FileError: pycocoevalcap is not installed or lacks the file.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    raise FileError(
        f"{name} of pycocoevalcap is not installed; run `pip install 'pycocoevalcap>=1.2'`."
    )


def convert_lines(name: str, command: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Feed lines to a program that answers with as many lines, and return those.

    Args:
        name: what to call the program in an error.
        command: its command line.
        lines: texts without line ends.

    Raises:
        FileError: the program fails or gives another number of lines.
    """
    if not lines:
        return []
    # JSON can hold lone surrogates, which have no UTF-8 form.
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    done = subprocess.run(list(command), input=text, capture_output=True, check=False)
    answers = done.stdout.decode("utf-8", "replace").split("\n")
    if done.returncode != 0 or len(answers) != len(lines) + 1:
        tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise FileError(
            f"{name} gave {len(answers) - 1} lines for {len(lines)} captions (exit code "
            f"{done.returncode}): {' / '.join(tail)}; `java` must run (try `java -version`)."
        )
    return answers[:-1]
