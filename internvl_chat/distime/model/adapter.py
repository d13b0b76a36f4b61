"""Adapters: what a run has trained, in a small folder that names the checkpoint it started from.

A folder of ``adapter.json``, ``adapter.safetensors`` and the processor's files. The tensors are the
trained ones under the names of the model that was trained: LoRA pairs, whole tensors, and rows of
the two vocabularies where these were not trained in full.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from distime.model import weights
from distime.model.new_rows import NEW_ROWS
from distime.model.tying import without_tied_head
from distime.model.weights import CheckpointError, merged_weight

DESCRIPTION, WEIGHTS = "adapter.json", "adapter.safetensors"
EMBEDDING, HEAD = "model.language_model.embed_tokens", "lm_head"
_LORA_A, _LORA_B, _BASE_LAYER = ".lora_A.default.", ".lora_B.default.", ".base_layer."
_SAMPLED = 64


@dataclass
class Adapter:
    """What an adapter belongs to and how it is applied.

    Attributes:
        base: folder of the checkpoint that training started from.
        config_overrides: fields of its configuration that were changed.
        lora_scale: LoRA's alpha / rank; None without LoRA.
        new_token_ids: of the rows that `new_rows` tensors hold.
        dtype: of the base while it was trained, such as "float32".
        base_digest: of a sample of the base's untouched tensors, so that another base is noticed.
    """

    base: str
    config_overrides: dict[str, Any] = field(default_factory=dict)
    lora_scale: float | None = None
    new_token_ids: list[int] = field(default_factory=list)
    dtype: str = "float32"
    base_digest: str = ""


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (path / DESCRIPTION).is_file()


def read_description(path: Path) -> Adapter:
    """Read what an adapter folder says of itself.

    Raises:
        CheckpointError: it cannot be read.
    """
    values = weights.read_json(path / DESCRIPTION)
    names = {field.name for field in fields(Adapter)}
    if values.keys() != names:
        raise CheckpointError(f"{path / DESCRIPTION}: expected the fields {sorted(names)}")
    return Adapter(**values)


def trained_tensors(
    state: Mapping[str, Tensor], trained: Collection[str], new_token_ids: Sequence[int]
) -> dict[str, Tensor]:
    """Pick from the state dict of a model in training what an adapter has to hold.

    The rows of new tokens go along where the vocabularies are frozen: a base InternVL2.5 lacks
    them, and they would be drawn anew.

    Args:
        state: of the whole model.
        trained: names of its trained parameters.
        new_token_ids: of the rows.
    """
    tensors = {name: state[name] for name in trained}
    for module in (EMBEDDING, HEAD):
        weight, rows = f"{module}.weight", f"{module}.{NEW_ROWS}"
        if weight not in trained and weight in state and rows not in trained:
            tensors[rows] = state[rows] if rows in state else state[weight][list(new_token_ids)]
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def write(folder: Path, adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Write `adapter.json` and `adapter.safetensors` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / DESCRIPTION).write_text(json.dumps(asdict(adapter), indent=2) + "\n")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of an adapter folder.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return weights.read_file(folder / WEIGHTS)


def fold(
    state: Mapping[str, Tensor],
    lora_scale: float | None = None,
    new_token_ids: Sequence[int] = (),
) -> dict[str, Tensor]:
    """Return the state dict of the plain model: LoRA merged, new rows in their matrices.

    Args:
        state: of a model in training, or of a plain one together with an adapter's tensors; it is
            left as it is.
        lora_scale: LoRA's alpha / rank.
        new_token_ids: of the new rows.
    """
    extra = (_LORA_A, _LORA_B, f".{NEW_ROWS}")
    plain = {
        _plain(name): tensor
        for name, tensor in state.items()
        if not any(part in name for part in extra)
    }
    for name, tensor in state.items():
        if _LORA_A in name:
            target, b = name.replace(_LORA_A, "."), state[name.replace(_LORA_A, _LORA_B)]
            plain[target] = merged_weight(plain[target], tensor, b, lora_scale)
        elif name.endswith(f".{NEW_ROWS}"):
            target = f"{name.removesuffix(NEW_ROWS)}weight"
            plain[target] = plain[target].clone()
            plain[target][list(new_token_ids)] = tensor.to(plain[target])
    return plain


def apply(model: PreTrainedModel, folder: Path, adapter: Adapter) -> None:
    """Fold an adapter into the model it belongs to, in place.

    Raises:
        CheckpointError: the model is not the one that the adapter was trained on.
    """
    tensors = read_tensors(folder)
    state = without_tied_head(model, model.state_dict())
    targets = {name.replace(_LORA_A, ".").replace(_LORA_B, ".") for name in tensors}
    targets = {name.replace(f".{NEW_ROWS}", ".weight") for name in targets}
    if unknown := sorted(targets - state.keys()):
        raise CheckpointError(f"{folder}: its base has no tensor {unknown[0]}; is it another one?")
    untouched = [name for name in state if name not in tensors]
    if base_digest(state, untouched) != adapter.base_digest:
        raise CheckpointError(
            f"{folder}: it was trained on {adapter.base}, and the weights it is to be applied to "
            "are others; name the base with `distime merge BASE ADAPTER DST`"
        )
    merged = fold(state | tensors, adapter.lora_scale, adapter.new_token_ids)
    changed = {name: tensor for name, tensor in merged.items() if tensor is not state.get(name)}
    try:
        model.load_state_dict(changed, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def base_digest(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """Hash the first few numbers of some tensors of a state dict, in bfloat16."""
    digest = hashlib.sha256()
    for name in sorted(names, key=_plain):
        sample = state[name].detach().flatten()[:_SAMPLED].to("cpu", torch.bfloat16)
        digest.update(_plain(name).encode() + sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _plain(name: str) -> str:
    return name.replace(_BASE_LAYER, ".")
