"""Embeddings and output heads of which only the rows of new tokens are trained.

Training two full vocabularies to learn two tokens costs 2 x vocabulary x width parameters, with
their gradients and optimizer states. Here the matrices stay frozen and the new rows are a small
parameter of their own, which the forward pass puts in their place. The classes replace their plain
counterparts in a model and are folded back by `distime.model.adapter.fold` when it is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

NEW_ROWS = "new_rows"


class NewRowsEmbedding(nn.Embedding):
    """An embedding with a frozen matrix and trained rows.

    Args:
        plain: the embedding that is replaced; its matrix is used, not copied.
        ids: of the trained rows.
    """

    def __init__(self, plain: nn.Embedding, ids: Sequence[int]):
        super().__init__(
            plain.num_embeddings, plain.embedding_dim, plain.padding_idx, device="meta"
        )
        self.weight = plain.weight
        _add_rows(self, ids)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look up `(B, T)` tokens; return `(B, T, C)`."""
        embeds = super().forward(input_ids)
        is_row = input_ids.unsqueeze(-1) == self.ids
        # Every row takes part, whatever the tokens are, so that it always has a gradient.
        rows = F.embedding(is_row.int().argmax(-1), self.new_rows)
        return torch.where(is_row.any(-1, keepdim=True), rows, embeds)


class NewRowsHead(nn.Linear):
    """An output head with a frozen matrix and trained rows.

    Args:
        plain: the head that is replaced; its matrix is used, not copied.
        ids: of the trained rows.
        new_rows: the rows, where they are tied to those of the embedding.
    """

    def __init__(self, plain: nn.Linear, ids: Sequence[int], new_rows: nn.Parameter | None = None):
        super().__init__(plain.in_features, plain.out_features, bias=False, device="meta")
        self.weight = plain.weight
        _add_rows(self, ids, new_rows)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `(..., C)` to `(..., vocabulary)`."""
        logits = super().forward(hidden)
        return logits.index_copy_(-1, self.ids, F.linear(hidden, self.new_rows))


def _add_rows(module: nn.Module, ids: Sequence[int], rows: nn.Parameter | None = None) -> None:
    weight = module.weight.requires_grad_(False)
    module.register_buffer("ids", torch.tensor(ids, device=weight.device), persistent=False)
    module.new_rows = nn.Parameter(weight[module.ids].clone()) if rows is None else rows


def train_new_rows(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Freeze both vocabularies of a model but for some rows, in place.

    Args:
        model: with an input embedding and an output head without bias, tied or not.
        ids: of the rows that are trained.
    """
    embedding = NewRowsEmbedding(model.get_input_embeddings(), ids)
    head = model.get_output_embeddings()
    is_tied = head.weight is embedding.weight
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(NewRowsHead(head, ids, embedding.new_rows if is_tied else None))
