#!/bin/sh
# Go on from DisTime-InternVL2.5-1B with GRPO: see grpo_recipe.sh.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/internvl2_5_1b_grpo_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
MODEL=${MODEL:-$TOP/checkpoint/DisTime/DisTime-InternVL2_5-1B}
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-InternVL2_5-1B-grpo}
export MODEL OUTPUT_DIR
exec sh "$HERE/grpo_recipe.sh" internvl2_5_1b_dynamic_res_merged_stage_finetune_lora.sh "$@"
