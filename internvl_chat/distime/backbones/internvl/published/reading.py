"""Reading a checkpoint in the published layout."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from distime.backbones.internvl.published.config import MODEL_TYPE, llm_family, our_config
from distime.backbones.internvl.published.names import from_published
from distime.model.base_checkpoint import (
    EMBEDDING,
    HEAD,
    check_rows,
    draw_rows,
    how_times_start,
    settle_head,
    special_token_ids,
    time_modules,
)
from distime.model.tokens import (
    FRAME_TIME_REF,
    IM_END,
    IMG_CONTEXT,
    SPECIAL_TOKENS,
    TIME_STAMP,
)
from distime.model.tying import set_tied
from distime.model.weights import (
    Checkpoint,
    CheckpointError,
    merged_weight,
    read_json,
    read_tensors,
)

logger = logging.getLogger(__name__)


def is_published(config: dict[str, Any]) -> bool:
    """Whether a config.json is of the published layout."""
    return config.get("model_type") == MODEL_TYPE


def read(path: Path, overrides: dict[str, Any] | None = None) -> Checkpoint:
    """Read a checkpoint folder in the published layout.

    Args:
        path: folder with config.json, the tokenizer files and the weights.
        overrides: fields of our configuration to set.

    Raises:
        CheckpointError: with the names of what is missing, unexpected or wrongly shaped.
    """
    source = read_json(path / "config.json")
    tensors = _merge_lora(path, source, read_tensors(path))
    token_ids, tokenizer_length = special_token_ids(path, [IM_END, *SPECIAL_TOKENS], [IMG_CONTEXT])
    has_time = any(name.startswith(("time_enc.", "time_gen.")) for name in tensors)
    llm = llm_family(path, source)
    translated = from_published(path, tensors, source["llm_config"], llm)
    config = our_config(path, source, llm)
    says_tied = source["llm_config"].get("tie_word_embeddings") or source.get("tie_word_embeddings")
    set_tied(config, settle_head(path, bool(says_tied), translated))
    for name, value in (overrides or {}).items():
        setattr(config, name, value)

    rows = translated[HEAD].shape[0]
    new_tokens = [token for token in SPECIAL_TOKENS if token not in token_ids]
    if has_time and new_tokens:
        raise CheckpointError(f"{path}: its tokenizer lacks {', '.join(new_tokens)}")
    check_rows(path, token_ids, rows, source["llm_config"].get("vocab_size", rows))
    if new_tokens:
        # The published recipe makes the vocabulary as long as the tokenizer: spare rows go.
        is_tied = translated[EMBEDDING] is translated[HEAD]
        translated[EMBEDDING] = translated[EMBEDDING][:tokenizer_length]
        kept = translated[HEAD][:tokenizer_length]
        translated[HEAD] = translated[EMBEDDING] if is_tied else kept
        config.text_config.vocab_size = tokenizer_length
        new = range(tokenizer_length, tokenizer_length + len(new_tokens))
        token_ids |= zip(new_tokens, new, strict=True)
        draw_rows(path, translated, new, tokenizer_length, config)
    config.image_token_id = token_ids[IMG_CONTEXT]
    config.time_token_id = token_ids[TIME_STAMP]
    config.frame_time_token_id = token_ids[FRAME_TIME_REF]

    fresh = []
    if not has_time:
        fresh = time_modules(config)
        logger.info("%s: a base checkpoint; %s", path, how_times_start(fresh))
    end = token_ids.get(IM_END, source["llm_config"].get("eos_token_id"))
    pad = source["llm_config"].get("pad_token_id")
    pad = token_ids.get("<|endoftext|>", end) if pad is None else pad
    generation = GenerationConfig(eos_token_id=end, pad_token_id=pad)
    return Checkpoint(config, translated, translated[HEAD].dtype, fresh, generation)


def _merge_lora(
    path: Path, source: dict[str, Any], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Fold `W + alpha / r * B A` into each adapted layer; without LoRA nothing changes."""
    wrapped = {"language_model.": "use_llm_lora", "vision_model.": "use_backbone_lora"}
    if not any(".base_model.model." in name for name in tensors):
        return tensors
    merged: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        plain = name.replace(".base_model.model.", ".", 1).replace(".base_layer.", ".")
        merged[plain] = tensor
    adapters = [name for name in tensors if ".lora_A." in name]
    for name_a in adapters:
        name_b = name_a.replace(".lora_A.", ".lora_B.")
        plain = re.sub(r"\.lora_A\.[^.]+\.", ".", name_a).replace(".base_model.model.", ".", 1)
        if name_b not in tensors or plain not in merged:
            raise CheckpointError(f"{path}: LoRA tensor {name_a} lacks its partner or its layer")
        a, b, base = tensors[name_a], tensors[name_b], merged[plain]
        prefix = next(prefix for prefix in wrapped if plain.startswith(prefix))
        rank = int(source.get(wrapped[prefix]) or a.shape[0])
        if rank != a.shape[0]:
            raise CheckpointError(
                f"{path}: config.json says {wrapped[prefix]}={rank}, but {name_a} has rank "
                f"{a.shape[0]}"
            )
        # The published wrapper always sets alpha to twice the rank.
        merged[plain] = merged_weight(base, a, b, 2.0)
    logger.info("%s: merged LoRA into %d layers", path, len(adapters))
    return merged
