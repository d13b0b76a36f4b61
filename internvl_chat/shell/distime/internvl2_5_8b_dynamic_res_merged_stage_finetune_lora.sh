#!/bin/sh
# Fine-tune InternVL2.5-8B into DisTime-InternVL2.5-8B, as published: see lora_recipe.sh.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/internvl2_5_8b_dynamic_res_merged_stage_finetune_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
MODEL=${MODEL:-$TOP/checkpoint/OpenGVLab/InternVL2_5-8B}
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-InternVL2_5-8B}
WEIGHT_DECAY=0.05
export MODEL OUTPUT_DIR WEIGHT_DECAY
exec sh "$HERE/lora_recipe.sh" --conv_style internvl2_5 "$@"
