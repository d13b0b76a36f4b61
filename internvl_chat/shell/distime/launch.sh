#!/bin/sh
# Start fine-tuning on one process or many: what every recipe and the quickstart go through.
#
#   GPUS=8 sh internvl_chat/shell/distime/launch.sh --model_name_or_path ... --meta_path ... [--flags]
#
# Environment:
#   GPUS                   processes on this machine (all its GPUs; 1 where it has none)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   for several machines: the same command on each
#   BATCH_SIZE             samples (rows, when packing) of one optimizer step over all processes
#   PER_DEVICE_BATCH_SIZE  samples in one forward pass of one process (1)
#   PYTHON                 the Python to run (python)
#
# Without a GPU the processes run on the CPU and talk over gloo.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
PYTHON=${PYTHON:-python}
NNODES=${NNODES:-1}
PYTHONPATH=$HERE/../..${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

# A wrong flag is found in a tenth of a second, before torch is loaded and processes are started.
COUNT=$("$PYTHON" -c 'import sys
from distime.train.command_line import main
main() and sys.exit(2)
import torch
print(torch.cuda.device_count())' "$@")
if [ "$COUNT" -gt 0 ]; then
  GPUS=${GPUS:-$COUNT}
  DEVICE_FLAGS=
else
  GPUS=${GPUS:-1}
  DEVICE_FLAGS='--use_cpu True'
  # Small models on a CPU are as fast on one thread a process, and far steadier.
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  export OMP_NUM_THREADS
fi

PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}
STEP=$((GPUS * NNODES * PER_DEVICE_BATCH_SIZE))
BATCH_SIZE=${BATCH_SIZE:-$STEP}
if [ $((BATCH_SIZE % STEP)) -ne 0 ]; then
  echo "error: BATCH_SIZE=$BATCH_SIZE is not a multiple of GPUS x NNODES x PER_DEVICE_BATCH_SIZE" \
    "= $GPUS x $NNODES x $PER_DEVICE_BATCH_SIZE = $STEP: change one of them" >&2
  exit 2
fi

# shellcheck disable=SC2086  # DEVICE_FLAGS is two words or none
set -- --per_device_train_batch_size "$PER_DEVICE_BATCH_SIZE" \
  --gradient_accumulation_steps $((BATCH_SIZE / STEP)) $DEVICE_FLAGS "$@"
if [ "$NNODES" -gt 1 ]; then
  exec "$PYTHON" -m torch.distributed.run \
    --nnodes "$NNODES" --node_rank "${NODE_RANK:?the number of this machine, from 0}" \
    --master_addr "${MASTER_ADDR:?the address of machine 0}" \
    --master_port "${MASTER_PORT:-29500}" --nproc_per_node "$GPUS" \
    -m distime.train.finetune "$@"
fi

# A single process on a CPU starts faster by itself, but DeepSpeed wants to be launched.
case " $* " in *" --deepspeed"*) LAUNCHED=1 ;; *) LAUNCHED=$((COUNT > 0 || GPUS > 1)) ;; esac
if [ "$LAUNCHED" -eq 1 ]; then
  # --standalone chooses a free port, so that runs beside one another do not collide.
  exec "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS" \
    -m distime.train.finetune "$@"
else
  exec "$PYTHON" -m distime.train.finetune "$@"
fi
