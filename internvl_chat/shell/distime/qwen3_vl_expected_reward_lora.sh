#!/bin/sh
# Fine-tune Qwen3-VL with the expected IoU beside the losses: see expected_reward_recipe.sh.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/qwen3_vl_expected_reward_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-Qwen3-VL-8B-expected-reward}
export OUTPUT_DIR
exec sh "$HERE/expected_reward_recipe.sh" qwen3_vl_finetune_lora.sh "$@"
