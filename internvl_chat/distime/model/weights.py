"""Reading the weights of a checkpoint folder, whatever its layout: files and shards, whole or not.

A backbone says what the tensors are called; here they are numbers in files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distime.errors import DisTimeError


class CheckpointError(DisTimeError):
    """A checkpoint cannot be read as what it says it is; the message names file and tensors."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder: safetensors or `.bin`, one file or shards with an index.

    Raises:
        CheckpointError: no weights are there, a shard is missing or damaged, or a shard lacks a
            tensor that the index promises.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{name}.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not weight_map:
                raise CheckpointError(f"{index}: has no weight_map")
            tensors: dict[str, Tensor] = {}
            for shard in sorted(set(weight_map.values())):
                # An index names files beside it; anything else is damage or mischief.
                if Path(shard).name != shard:
                    raise CheckpointError(f"{index}: shard {shard!r} is not a plain file name")
                tensors |= read_file(path / shard)
            if missing := sorted(weight_map.keys() - tensors.keys()):
                raise CheckpointError(f"{index}: its shards lack {listed(missing)}")
            return tensors
        if (path / name).is_file():
            return read_file(path / name)
    raise CheckpointError(
        f"{path}: no weights found; looked for model.safetensors, pytorch_model.bin and their "
        ".index.json files"
    )


def read_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one `.safetensors` or `.bin` file.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".bin":
            return torch.load(path, map_location="cpu", weights_only=True)
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the shard is missing; download it again") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or unreadable: {error}; get it again") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(
            f"{path}: holds more than tensors; it is not loaded, since unpickling it could run "
            f"code ({error})"
        ) from error


def listed(names: list[str], limit: int = 20) -> str:
    """Names for a message, the first few of them."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def check_loading(path: Path | str, info: Any, may_miss: list[str] = ()) -> None:
    """Raise unless every tensor found its place.

    Args:
        path: named in the error.
        info: the loading info of transformers' `from_pretrained`.
        may_miss: names that are initialised on purpose.

    Raises:
        CheckpointError: lists the missing, unexpected and wrongly shaped tensors.
    """
    info = info if isinstance(info, dict) else vars(info)
    problems = []
    missing = sorted(set(info.get("missing_keys", ())) - set(may_miss))
    if missing:
        problems.append(f"missing: {listed(missing)}")
    if unexpected := sorted(info.get("unexpected_keys", ())):
        problems.append(f"unexpected: {listed(unexpected)}")
    if mismatched := sorted(str(item) for item in info.get("mismatched_keys", ())):
        problems.append(f"wrong shape: {listed(mismatched)}")
    if problems:
        raise CheckpointError(f"{path}: tensors do not fit the config; " + "; ".join(problems))


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return `W + scale * B A`, computed in float32 and rounded once."""
    return (weight.float() + scale * (b.float() @ a.float())).to(weight.dtype)
