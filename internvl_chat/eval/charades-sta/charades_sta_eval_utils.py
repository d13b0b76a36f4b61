"""Score Charades-STA: R1 at IoU 0.3, 0.5, 0.7 and mIoU.

Same as `distime score charades`; `--pred_file`, `--gt_file`, `--output`, `--published`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout needs no install
from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("charades"))
