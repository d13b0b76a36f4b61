#!/bin/sh
# Go on with GRPO from what qwen3_vl_finetune_lora.sh has made of Qwen3-VL: see grpo_recipe.sh.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/qwen3_vl_grpo_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
MODEL=${MODEL:-$TOP/work_dirs/DisTime-Qwen3-VL-8B}
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-Qwen3-VL-8B-grpo}
export MODEL OUTPUT_DIR
exec sh "$HERE/grpo_recipe.sh" qwen3_vl_finetune_lora.sh "$@"
