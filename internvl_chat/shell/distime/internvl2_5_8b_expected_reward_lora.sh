#!/bin/sh
# Fine-tune InternVL2.5-8B with the expected IoU beside the published losses: see expected_reward_recipe.sh.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/internvl2_5_8b_expected_reward_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-InternVL2_5-8B-expected-reward}
export OUTPUT_DIR
exec sh "$HERE/expected_reward_recipe.sh" internvl2_5_8b_dynamic_res_merged_stage_finetune_lora.sh "$@"
