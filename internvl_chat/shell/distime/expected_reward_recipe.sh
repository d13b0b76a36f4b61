#!/bin/sh
# A fine-tuning recipe with the exact expected IoU beside its losses (docs/REWARDS.md).
#
#   sh expected_reward_recipe.sh SCRIPT [--flags]     SCRIPT: a recipe beside this one
#
# The weight is ours: no paper has this loss.
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
SCRIPT=${1:?a recipe beside this one}
shift
exec sh "$HERE/$SCRIPT" --objective expected_reward --rewards tiou --reward_weight 1 "$@"
