"""Score NExT-GQA: QA accuracy by question type, and grounded QA.

Same as `distime score nextgqa`; `--pred_file`, `--gt_file`, `--output`, `--published`.
`--pred_file result_qa.json` alone gives the accuracies only.
"""

import sys

from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("nextgqa"))
