#!/bin/sh
# Fine-tune LLaVA-OneVision-7B, the paper's second backbone, into DisTime-LLaVA-OneVision-7B. What
# the paper says of it: one stage, LoRA, the vision tower frozen, embeddings, head and time modules
# in full. The numbers are those of its recipe for InternVL2.5 (see lora_recipe.sh); choices of ours
# are 16 frames of 384 pixels with 196 tokens each, one newline behind the last, and the weight
# decay of the published 8B.
#
#   GPUS=8 META_PATH=... sh internvl_chat/shell/distime/llava_onevision_7b_finetune_lora.sh
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# A copy inside an installed package has no checkout above it.
if [ -d "$HERE/../../distime" ]; then TOP=$HERE/../../..; else TOP=.; fi
MODEL=${MODEL:-$TOP/checkpoint/llava-hf/llava-onevision-qwen2-7b-ov-hf}
OUTPUT_DIR=${OUTPUT_DIR:-$TOP/work_dirs/DisTime-LLaVA-OneVision-7B}
WEIGHT_DECAY=0.05
export MODEL OUTPUT_DIR WEIGHT_DECAY
exec sh "$HERE/lora_recipe.sh" "$@"
