"""Score NExT-GQA: grounded QA (Acc@GQA, IoP, IoU) and QA accuracy.

Same as `distime score nextgqa`; `--pred_file`, `--gt_file`, `--output`, `--published`.
`--pred_file` takes result.json or its two halves (see process_and_split.py).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout needs no install
from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("nextgqa"))
