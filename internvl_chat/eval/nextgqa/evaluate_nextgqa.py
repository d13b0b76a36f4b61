"""Score NExT-GQA: QA accuracy by question type, and grounded QA.

Same as `distime score nextgqa`; `--pred_file`, `--gt_file`, `--output`, `--published`.
`--pred_file result_qa.json` alone gives the accuracies only.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout needs no install
from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("nextgqa"))
