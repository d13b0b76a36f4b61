"""Score ActivityNet-Captions dense captioning: SODA_c, METEOR, CIDEr.

Same as `distime score anet_dvc`; `--pred_file`, `--gt_file`, `--output`, `--published`.
`--log_path` and `--data_path` are other names of the first two; `--task` chooses captioning or
grounding lines, `--time-unit` the unit of the log.
"""

import sys

from distime.cli.score import script

if __name__ == "__main__":
    sys.exit(script("anet_dvc"))
