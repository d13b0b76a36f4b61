#!/bin/sh
# GRPO on a model that was fine-tuned by a recipe (docs/REWARDS.md).
#
#   sh grpo_recipe.sh SCRIPT [--flags]     SCRIPT: the recipe beside this one that made the model
#
# Group, temperature, clip, unscaled rewards, no KL, constant rate and 200 steps
# are TimeLens' and TimeLens2's, as are twass1 and tiou. Ours: LoRA, and with it ten times their
# learning rate; 8 videos a step with up to 8 questions each, so that a video is read once for all.
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
SCRIPT=${1:?a recipe beside this one}
shift
BATCH_SIZE=${BATCH_SIZE:-8}
export BATCH_SIZE
exec sh "$HERE/$SCRIPT" \
  --objective grpo --rewards twass1 tiou format \
  --num_generations 8 --temperature 1 --clip_epsilon 0.2 --kl_weight 0 --scale_rewards False \
  --share_video_prefix True --max_items_per_group 8 \
  --train_embeddings new_rows \
  --learning_rate 1e-5 --lr_scheduler_type constant --warmup_steps 0 \
  --max_steps 200 --save_steps 50 \
  "$@"
