"""Split NExT-GQA's result.json into result_qa.json (answers) and result_gd.json (spans).

The halves are written beside it, or into `--out-dir`. Without `--pred_file` the newest results
under internvl_chat/results are split.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout needs no install
from distime.benchmarks import newest_predictions
from distime.benchmarks.nextgqa import split_file
from distime.files import FileError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pred_file", type=Path)
    parser.add_argument("--out-dir", type=Path)
    args = parser.parse_args()
    try:
        for path in split_file(args.pred_file or newest_predictions("nextgqa"), args.out_dir):
            print(f"wrote {path}")
    except FileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
