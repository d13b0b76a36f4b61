"""What is trained: LoRA on the language model, and the parts that are trained in full."""

from __future__ import annotations

import logging

from peft import LoraConfig, inject_adapter_in_model

from distime.backbones import DisTimeForConditionalGeneration
from distime.model.config import TimeConfig
from distime.model.new_rows import NEW_ROWS, train_new_rows
from distime.train.arguments import ModelArguments

logger = logging.getLogger(__name__)

_TIME_MODULES = ("time_encoder", "time_decoder")


def select_trainable(model: DisTimeForConditionalGeneration, arguments: ModelArguments) -> None:
    """Freeze what the flags freeze and put LoRA where they ask for it, in place."""
    parts = model.parts
    frozen = (
        *(parts.vision if arguments.freeze_backbone else ()),
        *(parts.projector if arguments.freeze_mlp else ()),
        *((parts.language_model, parts.head) if arguments.freeze_llm else ()),
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    if arguments.use_llm_lora:
        config = LoraConfig(
            r=arguments.use_llm_lora,
            lora_alpha=arguments.lora_alpha,
            lora_dropout=arguments.lora_dropout,
            target_modules=parts.lora_targets,
        )
        # Injected rather than wrapped: the model keeps its class, and with it its generate().
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        inject_adapter_in_model(config, model)
        for name, parameter in model.named_parameters():
            is_adapter = "lora_" in name
            parameter.requires_grad_(is_adapter or name in trained)
    if arguments.train_embeddings == "new_rows":
        train_new_rows(model, new_token_ids(model.config))
    in_full = arguments.train_embeddings == "full"
    for name, parameter in model.named_parameters():
        if name.startswith(_TIME_MODULES) or name.endswith(f".{NEW_ROWS}"):
            parameter.requires_grad_(True)
        elif name.startswith((parts.embedding, parts.head)):
            parameter.requires_grad_(in_full)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("training %s of %s parameters", f"{trainable:,}", f"{total:,}")


def new_token_ids(config: TimeConfig) -> list[int]:
    """Ids of the tokens that DisTime adds to a base checkpoint (`distime.model.tokens`)."""
    return [config.time_token_id, config.frame_time_token_id]
