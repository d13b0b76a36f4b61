#!/bin/sh
# Fine-tune Qwen3-VL into DisTime-Qwen3-VL. The paper has no such model: this is its recipe for
# InternVL2.5 (see lora_recipe.sh) with choices of ours, 16 frames in 8 slots of at most 768 tokens
# and the weight decay of the published 8B.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/qwen3_vl_finetune_lora.sh
#   MODEL=checkpoint/Qwen/Qwen3-VL-4B-Instruct OUTPUT_DIR=... sh internvl_chat/shell/distime/qwen3_vl_finetune_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
MODEL=${MODEL:-$TOP/checkpoint/Qwen/Qwen3-VL-8B-Instruct}
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-Qwen3-VL-8B}
WEIGHT_DECAY=0.05
export MODEL OUTPUT_DIR WEIGHT_DECAY
exec sh "$HERE/lora_recipe.sh" "$@"
