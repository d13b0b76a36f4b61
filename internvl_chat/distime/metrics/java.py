"""The two Java programs that pycocoevalcap carries: the PTB tokenizer and METEOR 1.5.

They are run as plain processes; none of pycocoevalcap's own code is imported.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from distime.metrics.files import MetricError

PTB_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor/meteor-1.5.jar"
PARAPHRASES = "meteor/data/paraphrase-en.gz"


def java_command() -> str:
    """Return the path of ``java``.

    Raises:
        MetricError: there is none.
    """
    command = shutil.which("java")
    if command is None:
        raise MetricError(
            "METEOR and the PTB tokenizer need Java, and there is no `java` on the PATH; install "
            "a runtime (for instance `apt-get install openjdk-17-jre-headless`)."
        )
    return command


def carried_file(name: str) -> Path:
    """Return the path of a file of pycocoevalcap, found without importing it.

    Raises:
        MetricError: pycocoevalcap is not installed or lacks the file.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    raise MetricError(
        f"{name} of pycocoevalcap is not installed; run `pip install 'pycocoevalcap>=1.2'`."
    )
