#!/bin/sh
# Fine-tune on several machines of a SLURM cluster, with a published recipe. From the repository's
# root, on a disk that all machines see:
#
#   sbatch --nodes 4 internvl_chat/shell/distime/slurm_multinode.sh [--flags of the recipe]
#
# Environment, besides what the recipe and launch.sh read (META_PATH, OUTPUT_DIR, BATCH_SIZE, ...):
#   RECIPE       script beside this one (that of 1B)
#   MASTER_PORT  port on the first machine (one that follows from the job's number)
#
# One task a machine starts one process a GPU. A job that is requeued, after a time limit or a broken
# machine, goes on from its newest checkpoint, also on another number of machines.
#SBATCH --job-name=distime
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu

# SLURM runs a copy of this file from elsewhere, so its own place says nothing.
HERE=${SLURM_SUBMIT_DIR:?run this with sbatch}/internvl_chat/shell/distime
RECIPE=$HERE/${RECIPE:-internvl2_5_1b_dynamic_res_merged_stage_finetune_lora.sh}
if [ ! -f "$RECIPE" ]; then
  echo "error: $RECIPE does not exist: submit from the repository's root, and choose RECIPE there" >&2
  exit 2
fi

NNODES=$SLURM_JOB_NUM_NODES
HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(echo "$HOSTS" | head -n 1)
# Jobs that share a machine must not share a port.
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export NNODES MASTER_ADDR MASTER_PORT

# srun does not hand on the number of cores of the job by itself.
exec srun --ntasks-per-node 1 --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
  sh -c 'NODE_RANK=$SLURM_NODEID GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:-1}} exec sh "$0" "$@"' \
  "$RECIPE" "$@"
