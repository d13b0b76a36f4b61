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
PYTHON=${PYTHON:-python}
GPUS=${GPUS:-1}
NNODES=${NNODES:-1}
PYTHONPATH=$HERE${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

CHECKPOINT=$1
BENCHMARK=$2
shift 2

case "$GPUS$NNODES" in
  *[!0-9]*) echo "error: GPUS=$GPUS NNODES=$NNODES: give numbers" >&2; exit 2 ;;
esac
if [ "$NNODES" -gt 1 ]; then
  exec "$PYTHON" -m torch.distributed.run \
    --nnodes "$NNODES" --node_rank "${NODE_RANK:?the number of this machine, from 0}" \
    --master_addr "${MASTER_ADDR:?the address of machine 0}" \
    --master_port "${MASTER_PORT:-29500}" --nproc_per_node "$GPUS" \
    -m distime.cli evaluate "$BENCHMARK" "$@" --checkpoint "$CHECKPOINT"
elif [ "$GPUS" -gt 1 ]; then
  # --standalone chooses a free port, so that runs beside one another do not collide.
  exec "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS" \
    -m distime.cli evaluate "$BENCHMARK" "$@" --checkpoint "$CHECKPOINT"
else
  exec "$PYTHON" -m distime.cli evaluate "$BENCHMARK" "$@" --checkpoint "$CHECKPOINT"
fi
