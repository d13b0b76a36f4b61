"""Score QVHighlights moment retrieval: R1, mAP (also by window length) and mIoU.

Same as `distime score qvh`; `--pred_file`, `--gt_file`, `--output`, `--published`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout needs no install
from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("qvh"))
