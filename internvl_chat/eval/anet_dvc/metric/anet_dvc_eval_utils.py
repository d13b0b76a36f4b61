"""Score ActivityNet-Captions dense captioning: SODA_c, METEOR, CIDEr.

Same as `distime score anet_dvc`; `--pred_file`, `--gt_file`, `--output`, `--published`.
`--log_path` and `--data_path` are other names of the first two; `--task` chooses captioning or
grounding lines, `--time-unit` the unit of the log.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # a checkout needs no install
from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("anet_dvc"))
