"""What is trained: LoRA on the language model, and the parts that are trained in full."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from peft import LoraConfig, inject_adapter_in_model
from peft.utils.constants import DUMMY_TARGET_MODULES

from distime.backbones import DisTimeForConditionalGeneration
from distime.model.adapter import vocabularies
from distime.model.config import TimeConfig
from distime.train.arguments import ModelArguments

logger = logging.getLogger(__name__)

TIME_MODULES = ("time_encoder", "time_decoder")


def select_trainable(model: DisTimeForConditionalGeneration, arguments: ModelArguments) -> None:
    """Freeze what the flags freeze and put LoRA where they ask for it, in place."""
    parts = model.parts
    frozen = (
        *parts.unused,
        *(parts.vision if arguments.freeze_backbone else ()),
        *(parts.projector if arguments.freeze_mlp else ()),
        *((parts.language_model, parts.head) if arguments.freeze_llm else ()),
        *(TIME_MODULES if arguments.freeze_time_head else ()),
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    modules = vocabularies(model)
    rows = modules if arguments.train_embeddings == "new_rows" else []
    if arguments.use_llm_lora or rows:
        # Injected rather than wrapped: the model keeps its class, and with it its generate().
        inject_adapter_in_model(lora_config(model, arguments, rows), model)
    in_full = arguments.train_embeddings == "full"
    for name, parameter in model.named_parameters():
        if "lora_" in name or "trainable_tokens_delta" in name:
            parameter.requires_grad_(True)
        elif name.startswith(tuple(f"{module}." for module in modules)):
            parameter.requires_grad_(in_full)
        else:
            parameter.requires_grad_(name in trained)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("training %s of %s parameters", f"{trainable:,}", f"{total:,}")


def lora_config(
    model: DisTimeForConditionalGeneration, arguments: ModelArguments, rows: Iterable[str] = ()
) -> LoraConfig:
    """What is trained beside modules in full, in PEFT's words.

    What is trained in full stays out: PEFT would train a copy beside the frozen original, twice the
    memory for both vocabularies.

    Args:
        model: that is trained.
        arguments: the flags.
        rows: names of the vocabularies of which the rows of new tokens are trained.
    """
    targets = model.parts.lora_targets
    return LoraConfig(
        r=max(arguments.use_llm_lora, 1),
        lora_alpha=max(arguments.lora_alpha, 1),
        lora_dropout=arguments.lora_dropout,
        target_modules=targets if arguments.use_llm_lora else DUMMY_TARGET_MODULES,
        trainable_token_indices=dict.fromkeys(rows, new_token_ids(model.config)) or None,
    )


def new_token_ids(config: TimeConfig) -> list[int]:
    """Ids of the tokens that DisTime adds to a base checkpoint (`distime.model.tokens`)."""
    return [config.time_token_id, config.frame_time_token_id]
