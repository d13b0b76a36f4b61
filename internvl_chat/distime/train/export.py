"""What a run writes: its result, and what it has trained so far into every checkpoint."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from distime.backbones import DisTimeForConditionalGeneration
from distime.files import read_json, write_json
from distime.model import adapter, weights
from distime.model.adapter import Adapter
from distime.model.tying import is_tied, without_tied_head
from distime.model.weights import CheckpointError
from distime.model_card import FILE_NAME as CARD
from distime.model_card import write_model_card
from distime.processing.processor import DisTimeProcessor
from distime.train.arguments import ModelArguments
from distime.train.checkpoints import replace_files
from distime.train.lora import lora_config, new_token_ids

logger = logging.getLogger(__name__)

RUN = "run.json"
Writer = Callable[[Path, Mapping[str, Tensor]], None]
ADAPTER_FOLDER = "adapter"


@dataclass
class Exporter:
    """Writes a model in training.

    Args:
        model: with LoRA and new rows still apart; it is left as it is.
        processor: of the model.
        arguments: what was trained and from where.
        dtype: of the result; None for that of training, which checkpoints always have.
    """

    model: DisTimeForConditionalGeneration
    processor: DisTimeProcessor
    arguments: ModelArguments
    dtype: torch.dtype | None = None

    def __post_init__(self):
        self.trained = {
            name for name, parameter in self.model.named_parameters() if parameter.requires_grad
        }

        self.trains_all = len(self.trained) == sum(1 for _ in self.model.parameters())

    def write_result(self, folder: Path, run: Mapping[str, Any] | None = None) -> None:
        """Write the full model, an adapter in `adapter/`, or both, as `--export` says.

        Args:
            folder: of the result.
            run: how it came about, for `run.json` and the model card beside it.
        """
        state = self.model.state_dict()
        if self.dtype is not None:
            # Before LoRA is merged, so that merging the adapter later gives the same bytes.
            state = {
                name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor
                for name, tensor in state.items()
            }
        writers = {folder: self.write_full, folder / ADAPTER_FOLDER: self.write_adapter}
        if self.arguments.export == "full":
            del writers[folder / ADAPTER_FOLDER]
        elif self.arguments.export == "adapter":
            del writers[folder]
        for target, write in writers.items():

            def fill(partial: Path, target: Path = target, write: Writer = write) -> None:
                write(partial, state)
                if run is not None:
                    write_json(partial / RUN, run)
                if not (target / CARD).exists():
                    write_model_card(
                        partial,
                        self.model.config,
                        self.processor.settings,
                        name=target.resolve().name,
                    )

            replace_files(target, fill)
            dtype = str(self.dtype or self.model.dtype).removeprefix("torch.")
            logger.info("wrote %s in %s", target, dtype)

    def write_full(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write the plain model, LoRA merged and new rows in place, and its processor.

        Args:
            folder: made if it is not there.
            state: of the whole model, where its parameters are spread over processes.
        """
        state = without_tied_head(self.model, state or self.model.state_dict())
        ids = new_token_ids(self.model.config)
        plain = adapter.fold(state, self.arguments.lora_scale, ids)
        dtype = _dtype_of(plain)  # writing empties the mapping
        self.model.save_pretrained(folder, state_dict=plain)
        _name_dtype(folder / "config.json", dtype)
        self.processor.save_pretrained(folder)

    def write_adapter(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write what is trained as an adapter of the start checkpoint, and the processor.

        Args:
            folder: made if it is not there.
            state: of the whole model, where its parameters are spread over processes.
        """
        state = state or self.model.state_dict()
        config, tensors = self._as_peft(state)
        written = Adapter(
            config=config,
            tensors={name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
            config_overrides=self.arguments.config_overrides,
            dtype=_dtype_of(state),
            base_digest=self._base_digest(state),
        )
        adapter.write(folder, written)
        self.processor.save_pretrained(folder)

    def _base_digest(self, state: Mapping[str, Tensor]) -> str:
        state = without_tied_head(self.model, state)
        return adapter.base_digest(state, [name for name in state if name not in self.trained])

    def check_base(self, checkpoint: Path) -> None:
        """Check that the frozen weights are those beside which a checkpoint was trained.

        Raises:
            CheckpointError: they are of another start checkpoint.
        """
        if not adapter.is_adapter(checkpoint):
            return  # it holds all weights, or DeepSpeed's shards alone
        found = adapter.read(checkpoint)
        if found.base_digest != self._base_digest(self.model.state_dict()):
            raise CheckpointError(
                f"{checkpoint} was trained on {found.base}, and the frozen weights of "
                f"--model_name_or_path {self.arguments.model_name_or_path} are others: give that "
                "one, or start afresh with another --output_dir"
            )

    def _as_peft(self, state: Mapping[str, Tensor]) -> tuple[LoraConfig, dict[str, Tensor]]:
        """Put what is trained into PEFT's words.

        The rows of new tokens go along where the vocabularies are frozen: a base model lacks them,
        and they would be drawn anew.
        """
        model, ids = self.model, new_token_ids(self.model.config)
        tensors = {adapter.peft_name(name): state[name] for name in self.trained}
        rows = []
        for module in adapter.vocabularies(model):
            name = adapter.rows_name(module)
            if f"{module}.weight" not in self.trained:
                rows.append(module)
                if name not in tensors:
                    tensors[name] = state[f"{module}.weight"][ids]
        whole = list(adapter.modules_in_full(model))
        head = adapter.module_name(model, model.get_output_embeddings())
        if head in whole:  # tied or not, PEFT looks for it
            tensors[adapter.peft_name(f"{head}.weight")] = state[f"{head}.weight"]
        config = dataclasses.replace(
            lora_config(model, self.arguments, rows),
            modules_to_save=whole or None,
            ensure_weight_tying=head in whole and is_tied(model),
            base_model_name_or_path=str(Path(self.arguments.model_name_or_path).resolve()),
            inference_mode=True,
        )
        return config, tensors

    def write_trained(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write what a checkpoint needs: an adapter, or the model where all of it is trained."""
        (self.write_full if self.trains_all else self.write_adapter)(folder, state)

    def load_trained(self, folder: Path) -> None:
        """Load what `write_trained` wrote into the model in training, in place.

        Raises:
            CheckpointError: a trained tensor is missing or has another shape.
        """
        if self.trains_all:
            tensors = weights.read_tensors(folder)
        else:
            read = weights.read_file(folder / adapter.WEIGHTS)
            names = {adapter.peft_name(name): name for name in self.trained}
            tensors = {names[name]: tensor for name, tensor in read.items() if name in names}
            state = self.model.state_dict()
            for module in adapter.vocabularies(self.model):
                # The rows that a base checkpoint lacks, where they are not trained.
                rows, weight = adapter.rows_name(module), f"{module}.weight"
                if rows in read and rows not in names:
                    state[weight][new_token_ids(self.model.config)] = read[rows].to(state[weight])
        if missing := sorted(self.trained - tensors.keys()):
            raise CheckpointError(f"{folder}: lacks {len(missing)} tensors, such as {missing[0]}")
        try:
            self.model.load_state_dict(tensors, strict=False)
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: {error}") from error


def _dtype_of(state: Mapping[str, Tensor]) -> str:
    """Return the name of the widest precision of a model's weights, such as "float32"."""
    dtype = weights.widest(t.dtype for t in state.values() if t.is_floating_point())
    return str(dtype).removeprefix("torch.")


def _name_dtype(path: Path, dtype: str) -> None:
    """Let a configuration name the precision of the weights beside it, in all its parts."""
    config, _ = read_json(path, "configuration of the model")
    if config.get("dtype") == dtype:
        return
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = dtype
    write_json(path, config)
