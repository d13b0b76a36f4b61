"""Reading the weights of a checkpoint folder, whatever its layout: files and shards, whole or not.

A backbone says what the tensors are called; here they are numbers in files.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig

from distime.errors import DisTimeError
from distime.files import not_downloaded


class CheckpointError(DisTimeError):
    """A checkpoint cannot be read as what it says it is; the message names file and tensors."""


@dataclass
class Checkpoint:
    """A checkpoint of others, translated.

    Attributes:
        config: our configuration.
        tensors: state dict in our names.
        dtype: of the weights in the file.
        fresh: names that the checkpoint rightly lacks and that are initialised anew.
        generation_config: stop and pad token.
    """

    config: PreTrainedConfig
    tensors: dict[str, Tensor]
    dtype: torch.dtype
    fresh: list[str] = field(default_factory=list)
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if path.is_file() and (reason := not_downloaded(path)):
            raise CheckpointError(f"{path} {reason}") from error
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def weight_files(path: Path) -> tuple[list[Path], set[str]]:
    """Find the files of weights of a folder: safetensors or `.bin`, one file or shards.

    Returns:
        the files, and the names that an index promises (none without one).

    Raises:
        CheckpointError: no weights are there, or the index is damaged.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{name}.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not weight_map or not isinstance(weight_map, dict):
                raise CheckpointError(f"{index}: has no weight_map; get it again")
            shards = sorted(set(map(str, weight_map.values())))
            for shard in shards:
                # An index names files beside it; anything else is damage or mischief.
                if Path(shard).name != shard:
                    raise CheckpointError(f"{index}: shard {shard!r} is not a plain file name")
            missing = [shard for shard in shards if not (path / shard).is_file()]
            if missing:
                raise CheckpointError(
                    f"{path / missing[0]}: the shard is missing; download it again ({len(missing)} "
                    f"of {len(shards)} that {index.name} names: {listed(missing)})"
                )
            return [path / shard for shard in shards], set(weight_map)
        if (path / name).is_file():
            return [path / name], set()
    raise CheckpointError(
        f"{path}: no weights found; looked for model.safetensors, pytorch_model.bin and their "
        ".index.json files"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder: safetensors or `.bin`, one file or shards with an index.

    Raises:
        CheckpointError: no weights are there, a shard is missing or damaged, or a shard lacks a
            tensor that the index promises.
    """
    files, promised = weight_files(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_file(file)
    _check_promises(path, promised, tensors.keys())
    return tensors


def read_dtypes(path: Path) -> dict[str, torch.dtype]:
    """Return the types of the floating-point tensors of a folder; no numbers are read.

    Raises:
        CheckpointError: as for `read_tensors`.
    """
    files, promised = weight_files(path)
    dtypes: dict[str, torch.dtype] = {}
    names: set[str] = set()
    for file in files:
        if file.suffix == ".bin":
            tensors = read_file(file)
            found = {name: tensor.dtype for name, tensor in tensors.items()}
        else:
            with _reading(file), safe_open(file, framework="pt", device="cpu") as opened:
                found = {
                    name: _DTYPES.get(opened.get_slice(name).get_dtype())
                    for name in opened.keys()  # noqa: SIM118
                }
        names |= found.keys()
        dtypes |= {n: dtype for n, dtype in found.items() if dtype and dtype.is_floating_point}
    _check_promises(path, promised, names)
    return dtypes


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


def _check_promises(path: Path, promised: set[str], found: Collection[str]) -> None:
    if missing := sorted(promised - set(found)):
        raise CheckpointError(f"{path}: its shards lack {listed(missing)}, which the index names")


def widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The narrowest type that holds the numbers of all these types exactly."""
    return functools.reduce(torch.promote_types, dtypes)


def set_dtypes(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Give the parameters of a model the types named, in place; others keep theirs."""
    for name, parameter in model.named_parameters():
        if name in dtypes:
            parameter.data = parameter.data.to(dtypes[name])


def read_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one `.safetensors` or `.bin` file.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than tensors.
    """
    with _reading(path):
        if path.suffix == ".bin":
            return torch.load(path, map_location="cpu", weights_only=True)
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a file of weights."""
    try:
        if reason := not_downloaded(path):
            raise CheckpointError(f"{path} {reason}")
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing; download it again") from error
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            is_pickle = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        if not is_pickle or "truncated" in str(error):
            raise CheckpointError(f"{path}: damaged or no file of weights; get it again") from error
        raise CheckpointError(
            f"{path}: holds more than tensors; it is not loaded, since unpickling it could run "
            f"code ({error})"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or unreadable: {error}; get it again") from error


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
