#!/bin/sh
# The published fine-tuning recipe (ET-Instruct, LoRA, ZeRO-2), for any model size.
#
# Not called by itself: the scripts beside it set MODEL, OUTPUT_DIR and WEIGHT_DECAY. Any flag after
# the script's name overrides the one here.
set -eu

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
ROOT=$(CDPATH='' cd -- "$HERE/../.." && pwd)
PYTHON=${PYTHON:-python}
: "${MODEL:?}" "${OUTPUT_DIR:?}" "${WEIGHT_DECAY:?}"
if [ -d "$ROOT/distime" ]; then DATA=$ROOT; else DATA=.; fi
META_PATH=${META_PATH:-${DISTIME_HOME:-$DATA}/data/et_instruct/meta.json}
BATCH_SIZE=${BATCH_SIZE:-128}
PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
export PYTHON PYTHONPATH BATCH_SIZE

FOUND=0  # a GPU; 1 none; 2 a flag is wrong
"$PYTHON" -c 'import sys
from distime.train.command_line import main
main() and sys.exit(2)
import torch
sys.exit(not torch.cuda.is_available())' "$@" || FOUND=$?
if [ "$FOUND" -eq 2 ]; then
  exit 2
elif [ "$FOUND" -eq 0 ]; then
  GPUS=${GPUS:-8}
  export GPUS
  set -- --bf16 True --deepspeed "$ROOT/zero_stage2_config.json" "$@"
fi

exec sh "$HERE/launch.sh" \
  --model_name_or_path "$MODEL" \
  --output_dir "$OUTPUT_DIR" \
  --meta_path "$META_PATH" \
  --dec_reg 32 --enc_sigma 1.0 --layer_num 3 \
  --freeze_llm True --freeze_mlp True --freeze_backbone True \
  --use_llm_lora 16 --lora_alpha 32 --lora_dropout 0.05 \
  --min_num_frame 16 --max_num_frame 16 --max_seq_length 8192 \
  --num_train_epochs 1 \
  --learning_rate 4e-5 --lr_scheduler_type cosine --warmup_steps 0.03 \
  --weight_decay "$WEIGHT_DECAY" --adam_beta1 0.9 --adam_beta2 0.999 \
  --group_by_length True \
  --gradient_checkpointing True --recompute_if_needed True \
  --dataloader_num_workers 4 \
  --save_strategy steps --save_steps 200 --save_total_limit 1 \
  --logging_steps 1 --report_to tensorboard \
  --resume auto \
  "$@"
