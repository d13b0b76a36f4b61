"""Adapters: what a run has trained, in PEFT's format, and the checkpoint that it belongs to.

A folder of PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, which PEFT loads by
itself; ``distime_adapter.json`` with what PEFT has no place for; and the processor's files. Trained
rows of the vocabularies are PEFT's `trainable_token_indices`, what was trained in full its
`modules_to_save`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from distime.files import write_json
from distime.model import old_adapter
from distime.model.tying import is_tied, without_tied_head
from distime.model.weights import CheckpointError, listed, merged_weight, read_file, read_json

CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "distime_adapter.json"
_PREFIX = "base_model.model."
_LORA_A, _LORA_B = ".lora_A.default.", ".lora_B.default."
_ROWS = ".token_adapter.trainable_tokens_delta"
_WRAPPERS = (".token_adapter", ".base_layer")  # that PEFT puts between a module and its weight
_SAMPLED = 64


@dataclass
class Adapter:
    """What an adapter is and belongs to.

    Attributes:
        config: PEFT's; `base_model_name_or_path` is the checkpoint that training started from.
        tensors: by PEFT's names in files.
        config_overrides: fields of the checkpoint's configuration that were changed.
        dtype: of the checkpoint while it was trained, such as "float32"; None if nothing says.
        base_digest: of a sample of the base's untouched tensors, so that another base is noticed;
            None if nothing says.
    """

    config: PeftConfig
    tensors: dict[str, Tensor]
    config_overrides: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    base_digest: str | None = None

    @property
    def base(self) -> str:
        """Folder of the checkpoint that training started from."""
        return str(self.config.base_model_name_or_path)


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (path / CONFIG).is_file() or old_adapter.is_adapter(path)


def read(path: Path) -> Adapter:
    """Read an adapter folder: ours, any other of PEFT's, or one in our format before PEFT's.

    Raises:
        CheckpointError: it cannot be read.
    """
    if not (path / CONFIG).is_file():
        return Adapter(**old_adapter.read(path))
    if "peft_type" not in read_json(path / CONFIG):
        raise CheckpointError(f"{path / CONFIG}: no adapter that PEFT knows: it has no peft_type")
    try:
        config = PeftConfig.from_pretrained(str(path))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path / CONFIG}: no adapter that PEFT knows: {error}") from error
    older = (path / WEIGHTS).with_suffix(".bin")
    tensors = read_file(older if older.is_file() else path / WEIGHTS)
    record = read_json(path / RECORD) if (path / RECORD).is_file() else {}
    names = {one.name for one in dataclasses.fields(Adapter)} - {"config", "tensors"}
    if record and record.keys() != names:
        raise CheckpointError(f"{path / RECORD}: expected the fields {sorted(names)}")
    return Adapter(config, tensors, **record)


def write(folder: Path, adapter: Adapter) -> None:
    """Write an adapter into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter.tensors, folder / WEIGHTS, metadata={"format": "pt"})
    adapter.config.save_pretrained(str(folder))
    names = ("config_overrides", "dtype", "base_digest")
    write_json(folder / RECORD, {name: getattr(adapter, name) for name in names})


def apply(model: PreTrainedModel, folder: Path, adapter: Adapter) -> None:
    """Merge an adapter into the model it belongs to, in place: by PEFT, in float32.

    Raises:
        CheckpointError: the model is not the one that the adapter was trained on.
    """
    state = without_tied_head(model, model.state_dict())
    dtypes = {name: tensor.dtype for name, tensor in state.items()}
    lone = _lone_parameters(model)
    config, tensors = _tied(model, adapter) if is_tied(model) else (adapter.config, adapter.tensors)
    try:
        with warnings.catch_warnings():
            # PEFT asks transformers by an older name whether activations are recomputed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            wrapped = PeftModel(model, dataclasses.replace(config, inference_mode=True))
        expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False).keys()
        beside = {name for name in tensors.keys() - expected if name.removeprefix(_PREFIX) in lone}
        if different := sorted(expected ^ (tensors.keys() - beside)):
            raise CheckpointError(
                f"{folder}: its tensors are not those of its configuration and base: "
                f"{listed(different)}"
            )
        untouched = [name for name in state if f"{_PREFIX}{name}" not in tensors]
        if adapter.base_digest not in (None, base_digest(state, untouched)):
            raise CheckpointError(
                f"{folder}: it was trained on {adapter.base}, and the weights it is to be applied "
                "to are others; name the base with `distime merge BASE ADAPTER DST`"
            )
        for name in beside:
            state[name.removeprefix(_PREFIX)].copy_(tensors[name])
        set_peft_model_state_dict(wrapped, {n: t for n, t in tensors.items() if n not in beside})
    except (RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}: does not fit its base: {error}") from error
    wrapped.merge_and_unload()
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])
    model.requires_grad_(True)


def _lone_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that stand beside modules, such as LLaVA's `image_newline`.

    PEFT has words for modules alone: one that was trained is in the file, but in no configuration,
    and PEFT by itself leaves it as it was.
    """
    return {
        f"{outer}.{name}" if outer else name
        for outer, module in model.named_modules()
        if any(True for _ in module.children())
        for name, _ in module.named_parameters(recurse=False)
    }


def _tied(model: PreTrainedModel, adapter: Adapter) -> tuple[PeftConfig, dict[str, Tensor]]:
    """Let a head that is the embedding follow an embedding that was trained in full."""
    embedding, head = (
        module_name(model, module)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
    )
    trained = f"{_PREFIX}{embedding}.weight"
    if trained not in adapter.tensors:
        return adapter.config, adapter.tensors
    config = dataclasses.replace(adapter.config, ensure_weight_tying=True)
    return config, adapter.tensors | {f"{_PREFIX}{head}.weight": adapter.tensors[trained]}


# ---------------------------------------------------------------------- a model in training


def peft_name(name: str) -> str:
    """The name that PEFT gives a trained tensor in a file, from that in the model in training."""
    return _PREFIX + name.replace(".default.", ".").removesuffix(".default")


def rows_name(module: str) -> str:
    """The same for the trained rows of an embedding or head, by the module's name."""
    return f"{_PREFIX}{module}{_ROWS}"


def vocabularies(model: PreTrainedModel) -> list[str]:
    """Names of the modules that hold a vocabulary: the embedding, and a head of its own."""
    names = [module_name(model, model.get_input_embeddings())]
    if not is_tied(model):
        names.append(module_name(model, model.get_output_embeddings()))
    return names


def module_name(model: nn.Module, module: nn.Module) -> str:
    """Name of a module within a model."""
    return next(name for name, one in model.named_modules() if one is module)


def modules_in_full(model: PreTrainedModel) -> Iterator[str]:
    """Yield the names of the largest modules of which every parameter is trained in place.

    A vocabulary is always named by itself, never a module around it: PEFT ties it by its name.
    """
    apart = vocabularies(model)

    def walk(name: str, module: nn.Module) -> Iterator[str]:
        parameters = {f"{name}.{inner}": one for inner, one in module.named_parameters()}
        is_adapted = any("lora_" in full or _ROWS in full for full in parameters)
        is_whole = all(parameter.requires_grad for parameter in parameters.values())
        can_be_saved = bool(name and parameters) and not isinstance(module, nn.ModuleList)
        can_be_saved &= not any(vocabulary.startswith(f"{name}.") for vocabulary in apart)
        if can_be_saved and is_whole and not is_adapted:
            yield name
            return
        for inner, child in module.named_children():
            if not inner.startswith("lora_") and inner != "token_adapter":
                yield from walk(f"{name}.{inner}" if name else inner, child)

    return walk("", model)


def fold(
    state: Mapping[str, Tensor],
    lora_scale: float | None = None,
    new_token_ids: Sequence[int] = (),
) -> dict[str, Tensor]:
    """Return the state dict of the plain model: LoRA merged, trained rows in their matrices.

    PEFT would merge into the model itself, which may have to go on training, or whose parameters
    are spread over processes.

    Args:
        state: of a model in training; it is left as it is.
        lora_scale: LoRA's alpha / rank.
        new_token_ids: of the rows.
    """
    extra = (_LORA_A, _LORA_B, _ROWS)
    plain = {
        _plain(name): tensor
        for name, tensor in state.items()
        if not any(part in name for part in extra)
    }
    for name, tensor in state.items():
        if _LORA_A in name:
            target, b = name.replace(_LORA_A, "."), state[name.replace(_LORA_A, _LORA_B)]
            plain[target] = merged_weight(plain[target], tensor, b, lora_scale)
        elif _ROWS in name:
            target = f"{name[: name.index(_ROWS)]}.weight"
            plain[target] = plain[target].clone()
            plain[target][list(new_token_ids)] = tensor.to(plain[target])
    return plain


def base_digest(state: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """Hash the first few numbers of some tensors of a state dict, in bfloat16."""
    digest = hashlib.sha256()
    for name in sorted((name for name in names if _ROWS not in name), key=_plain):
        sample = state[name].detach().flatten()[:_SAMPLED].to("cpu", torch.bfloat16)
        digest.update(_plain(name).encode() + sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(f"{wrapper}.", ".")
    return name
