#!/bin/sh
# Run a command of `distime` on one process or several: what evaluate.sh and annotate.sh go through.
#
#   GPUS=8 sh internvl_chat/processes.sh COMMAND [ARGUMENTS]
#
# The environment is that of evaluate.sh.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
PYTHON=${PYTHON:-python}
GPUS=${GPUS:-1}
NNODES=${NNODES:-1}
PYTHONPATH=$HERE${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

case "$GPUS$NNODES" in
  *[!0-9]*) echo "error: GPUS=$GPUS NNODES=$NNODES: give numbers" >&2; exit 2 ;;
esac
if [ "$NNODES" -gt 1 ]; then
  exec "$PYTHON" -m torch.distributed.run \
    --nnodes "$NNODES" --node_rank "${NODE_RANK:?the number of this machine, from 0}" \
    --master_addr "${MASTER_ADDR:?the address of machine 0}" \
    --master_port "${MASTER_PORT:-29500}" --nproc_per_node "$GPUS" \
    -m distime.cli "$@"
elif [ "$GPUS" -gt 1 ]; then
  # --standalone chooses a free port, so that runs beside one another do not collide.
  exec "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS" \
    -m distime.cli "$@"
else
  exec "$PYTHON" -m distime.cli "$@"
fi
