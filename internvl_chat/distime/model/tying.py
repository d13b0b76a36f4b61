"""Whether the output head and the input embedding are one matrix: what the tensors say counts.

A configuration can say otherwise (`tie_word_embeddings` of a checkpoint whose head was trained on
its own), and a head that is taken for tied is not written. So the configuration follows the model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether head and embedding of a model are the same parameter."""
    modules = (model.get_output_embeddings(), model.get_input_embeddings())
    # PEFT's wrappers make their weights anew every time.
    head, embedding = (getattr(module, "original_module", module) for module in modules)
    return head.weight is embedding.weight


def same_matrix(head: Tensor, embedding: Tensor) -> bool:
    """Whether a head and an embedding, as read from files, are equal number for number."""
    if head.shape != embedding.shape:
        return False
    exact = torch.promote_types(head.dtype, embedding.dtype)
    return torch.equal(head.to(exact), embedding.to(exact))


def set_tied(config: PreTrainedConfig, tied: bool) -> None:
    """Write into a configuration whether head and embedding are one matrix."""
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = tied


def follow_tensors(model: PreTrainedModel) -> None:
    """Make a model's configuration say whether its head and embedding are one matrix."""
    tied = is_tied(model)
    if bool(model.config.tie_word_embeddings) != tied:
        logger.warning(
            "%s: tie_word_embeddings is %s in the configuration, but output head and embedding are "
            "%s; set to %s",
            model.config.name_or_path or "the model", model.config.tie_word_embeddings,
            "one matrix" if tied else "two matrices", tied,
        )  # fmt: skip
        set_tied(model.config, tied)


def without_tied_head(model: PreTrainedModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out of a model's state dict what the head shares with the embedding."""
    if not is_tied(model):
        return dict(state)
    head = next(n for n, one in model.named_modules() if one is model.get_output_embeddings())
    return {name: tensor for name, tensor in state.items() if not name.startswith(f"{head}.")}
