#!/bin/sh
# Evaluate a checkpoint on a benchmark, on one process or several.
#
#   GPUS=8 sh internvl_chat/evaluate.sh CHECKPOINT BENCHMARK [STAGE] [--flags]
#
# BENCHMARK: charades anet qvh youcook2_dvc anet_dvc nextgqa mvbench longvideobench
# STAGE: 1, then 2, for nextgqa
#
# Environment:
#   GPUS     processes on this machine (1); without a GPU they run on the CPU
#   PYTHON   the Python to run (python)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   for several machines: the same command on each
#
# Flags are those of `distime evaluate --help`. A killed run continues when it is started again.
set -eu

case "${1:-}" in
  ''|-h|--help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    test -n "${1:-}"
    exit ;;
esac
if [ $# -lt 2 ]; then
  echo "error: name a checkpoint and a benchmark; see sh $0 --help" >&2
  exit 2
fi

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
CHECKPOINT=$1
BENCHMARK=$2
shift 2

exec sh "$HERE/processes.sh" evaluate "$BENCHMARK" "$@" --checkpoint "$CHECKPOINT"
