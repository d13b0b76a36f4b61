#!/bin/sh
# Fine-tune InternVL2.5-1B into DisTime-InternVL2.5-1B, as published: see lora_recipe.sh.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/internvl2_5_1b_dynamic_res_merged_stage_finetune_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
MODEL=${MODEL:-$TOP/checkpoint/OpenGVLab/InternVL2_5-1B}
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-InternVL2_5-1B}
WEIGHT_DECAY=0.01
export MODEL OUTPUT_DIR WEIGHT_DECAY
exec sh "$HERE/lora_recipe.sh" --conv_style internvl2_5 "$@"
