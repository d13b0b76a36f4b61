"""Evaluations one after another, for torchrun: `several_runs.py SETTINGS.json`."""

import json
import sys
from pathlib import Path

from distime.evaluate import Settings, run

if __name__ == "__main__":
    for values in json.loads(Path(sys.argv[1]).read_text()):
        result = run(Settings(**values))
        if result.problem:
            sys.exit(result.problem)
