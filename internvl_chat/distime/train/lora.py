"""What is trained: LoRA on the language model, and the parts that are trained in full."""

from __future__ import annotations

import logging

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from distime.model.modeling import DisTimeForConditionalGeneration
from distime.train.arguments import ModelArguments

logger = logging.getLogger(__name__)

_LORA_TARGETS = (
    r"model\.language_model\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
_TIME_MODULES = ("time_encoder", "time_decoder")
_EMBEDDINGS = ("lm_head", "model.language_model.embed_tokens")


def select_trainable(model: DisTimeForConditionalGeneration, arguments: ModelArguments) -> None:
    """Freeze what the flags freeze and put LoRA where they ask for it, in place."""
    frozen = {
        "model.vision_tower": arguments.freeze_backbone,
        "model.multi_modal_projector": arguments.freeze_mlp,
        "model.language_model": arguments.freeze_llm,
        "lm_head": arguments.freeze_llm,
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(name.startswith(p) for p, off in frozen.items() if off))
    if arguments.use_llm_lora:
        rank = arguments.use_llm_lora
        config = LoraConfig(
            r=rank,
            lora_alpha=arguments.lora_alpha or 2 * rank,
            lora_dropout=arguments.lora_dropout,
            target_modules=_LORA_TARGETS,
        )
        # Injected rather than wrapped: the model keeps its class, and with it its generate().
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        inject_adapter_in_model(config, model)
        for name, parameter in model.named_parameters():
            is_adapter = "lora_" in name
            parameter.requires_grad_(is_adapter or name in trained)
    in_full = _TIME_MODULES + (_EMBEDDINGS if arguments.train_embeddings else ())
    for name, parameter in model.named_parameters():
        if name.startswith(in_full):
            parameter.requires_grad_(True)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("training %s of %s parameters", f"{trainable:,}", f"{total:,}")


def merge_lora(model: nn.Module) -> int:
    """Fold every LoRA layer into the layer it adapts, in place; return how many there were."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in layers:
        layer.merge()
        parent_name, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent_name), child, layer.get_base_layer())
    return len(layers)
