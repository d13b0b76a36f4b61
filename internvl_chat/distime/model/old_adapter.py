"""Adapters in our own format, as they were written before PEFT's: read as if they were PEFT's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.utils.constants import DUMMY_TARGET_MODULES

from distime.model.weights import CheckpointError, read_file, read_json

DESCRIPTION, WEIGHTS = "adapter.json", "adapter.safetensors"
_FIELDS = {"base", "config_overrides", "lora_scale", "new_token_ids", "dtype", "base_digest"}
_ROWS = ".new_rows"


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter in the old format."""
    return (path / DESCRIPTION).is_file()


def read(path: Path) -> dict[str, Any]:
    """Read an adapter in the old format.

    Returns:
        the fields of a `distime.model.adapter.Adapter`.

    Raises:
        CheckpointError: it cannot be read.
    """
    values = read_json(path / DESCRIPTION)
    if values.keys() != _FIELDS:
        raise CheckpointError(f"{path / DESCRIPTION}: expected the fields {sorted(_FIELDS)}")
    tensors = read_file(path / WEIGHTS)
    lora = {name for name in tensors if ".lora_A." in name or ".lora_B." in name}
    rows = {name.removesuffix(_ROWS) for name in tensors if name.endswith(_ROWS)}
    whole = {name.rpartition(".")[0] for name in tensors.keys() - lora if not name.endswith(_ROWS)}
    whole = {name for name in whole if not any(name.startswith(f"{one}.") for one in whole)}
    rank = next((tensors[name].shape[0] for name in lora if ".lora_A." in name), 1)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank * (values["lora_scale"] or 1),
        target_modules=sorted({name.partition(".lora_")[0] for name in lora})
        or DUMMY_TARGET_MODULES,
        modules_to_save=sorted(whole) or None,
        trainable_token_indices=dict.fromkeys(sorted(rows), values["new_token_ids"]) or None,
        base_model_name_or_path=values["base"],
    )
    return {
        "config": config,
        "tensors": {_peft_name(name): tensor for name, tensor in tensors.items()},
        "config_overrides": values["config_overrides"],
        "dtype": values["dtype"],
        "base_digest": values["base_digest"],
    }


def _peft_name(name: str) -> str:
    if name.endswith(_ROWS):
        name = f"{name.removesuffix(_ROWS)}.token_adapter.trainable_tokens_delta"
    return f"base_model.model.{name.replace('.default.', '.')}"
