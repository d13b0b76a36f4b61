"""Score YouCook2 dense captioning: SODA_c, CIDEr, METEOR, F1, precision and recall.

Same as `distime score youcook2_dvc`; `--pred_file`, `--gt_file`, `--output`, `--published`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout needs no install
from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("youcook2_dvc"))
