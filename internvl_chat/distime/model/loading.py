"""DisTime on any backbone: made from a configuration, loaded from a folder, saved in one layout."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from distime.model import adapter
from distime.model.base_checkpoint import time_modules
from distime.model.heads import refuse_other_head, saved_head
from distime.model.hub import local_folder, why_no_checkpoint
from distime.model.modeling import TimeMixin
from distime.model.tying import follow_tensors
from distime.model.weights import (
    CheckpointError,
    check_loading,
    read_dtypes,
    read_json,
    set_dtypes,
    widest,
)

logger = logging.getLogger(__name__)


class DisTimeForConditionalGeneration(TimeMixin):
    """DisTime on any backbone. Made from a configuration or loaded from a folder, an instance is of
    the class of the backbone that these describe (`distime.backbones`).
    """

    def __new__(cls, config: PreTrainedConfig, *args: Any, **kwargs: Any):
        """Make an instance of the class that belongs to a configuration."""
        return super().__new__(cls._for_config(config))

    @classmethod
    def _for_config(cls, config: PreTrainedConfig) -> type[DisTimeForConditionalGeneration]:
        if cls is not DisTimeForConditionalGeneration:
            return cls
        known = {one.config_class: one for one in _CLASSES}
        if type(config) not in known:
            raise TypeError(
                f"{type(config).__name__} is the configuration of no backbone of DisTime; give one "
                "of " + ", ".join(one.__name__ for one in known)
            )
        return known[type(config)]

    @classmethod
    def _from_config(cls, config: PreTrainedConfig, **kwargs: Any):
        chosen = cls._for_config(config)
        if chosen is cls:
            return super()._from_config(config, **kwargs)
        return chosen._from_config(config, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *args: Any,
        config_overrides: dict[str, Any] | None = None,
        adapter_base: str | Path | None = None,
        exact: bool = False,
        **kwargs: Any,
    ) -> DisTimeForConditionalGeneration:
        """Load our own layout, an adapter, a backbone's base model, or a published DisTime.

        Which of them it is, and on which backbone, shows in the files. LoRA weights of an unmerged
        published checkpoint are merged into the layers they adapt, and an adapter
        (`distime.model.adapter`) is folded into the base checkpoint that it names. A base model
        gets rows for the tokens it lacks, and fresh time modules.

        Args:
            pretrained_model_name_or_path: folder, or a name on the hub: see
                `distime.model.hub.local_folder`.
            *args: as for transformers.
            config_overrides: fields of the configuration to set before the model is made.
            exact: give every tensor the type that it has in the files. Otherwise all have one type,
                `dtype` or the checkpoint's, and rounding that nobody asked for is logged.
            adapter_base: folder of the adapter's base, where it is not where it was.
            **kwargs: as for transformers (`dtype`, `device_map`, `attn_implementation`,
                `revision`, ...).

        Raises:
            HubError: there is neither such a folder nor such a name on the hub.
            CheckpointError: tensors are missing, unexpected or of a wrong shape; lists
                their names.
            HeadError: `config_overrides` name another time head than the checkpoint has.
        """
        path = local_folder(pretrained_model_name_or_path, kwargs.pop("revision", None))
        if adapter.is_adapter(path):
            return cls._from_adapter(path, adapter_base, config_overrides or {}, *args, **kwargs)
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path} {why_no_checkpoint(path)}")
        if cls is DisTimeForConditionalGeneration:
            return class_of(path).from_pretrained(
                path, *args, config_overrides=config_overrides, exact=exact, **kwargs
            )
        own_head, asked_head = saved_head(path), (config_overrides or {}).get("time_head")
        if asked_head is not None:
            refuse_other_head(path, asked_head)
        wants_info = kwargs.pop("output_loading_info", False)
        # Transformers only warns of some misfits; collected here, every one of them is an error.
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        if cls.reads(read_json(path / "config.json")):
            checkpoint = cls.read(path, config_overrides or {})
            dtypes = {name: tensor.dtype for name, tensor in checkpoint.tensors.items()}
            kwargs.setdefault("config", checkpoint.config)
            default, may_miss = checkpoint.dtype, checkpoint.fresh
            source, kwargs["state_dict"] = None, checkpoint.tensors
        else:
            dtypes, default, may_miss, source = read_dtypes(path), None, (), path
            if config_overrides:
                kwargs["config"] = cls.config_class.from_pretrained(path, **config_overrides)
            if asked_head not in (None, own_head):
                may_miss = time_modules(kwargs["config"])
        is_asked = exact or kwargs.get("dtype", "auto") != "auto"
        if exact:
            default = widest(dtypes.values())
        if default is not None:
            kwargs.setdefault("dtype", default)
        model, info = super().from_pretrained(source, *args, **kwargs)
        check_loading(path, info, may_miss=may_miss)
        follow_tensors(model)
        if source is None:
            model.generation_config = checkpoint.generation_config
        if exact:
            set_dtypes(model, dtypes)
        elif not is_asked:
            _warn_of_rounding(path, dtypes, model.dtype)
        return (model, info) if wants_info else model

    @classmethod
    def _from_adapter(
        cls,
        path: Path,
        base: str | Path | None,
        config_overrides: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> DisTimeForConditionalGeneration:
        found = adapter.read(path)
        base = Path(base or found.base)
        if not (base / "config.json").is_file() and not adapter.is_adapter(base):
            raise CheckpointError(
                f"{path}: an adapter of {base}, which is not there; name the base with "
                "`distime merge BASE ADAPTER DST`"
            )
        if found.base_digest is None:
            logger.warning("%s does not say which weights it was trained on; taking %s", path, base)
        if found.dtype is not None:
            kwargs.setdefault("dtype", getattr(torch, found.dtype))
        overrides = found.config_overrides | config_overrides
        loaded = cls.from_pretrained(base, *args, config_overrides=overrides, **kwargs)
        adapter.apply(loaded[0] if isinstance(loaded, tuple) else loaded, path, found)
        return loaded

    def save_pretrained(
        self, save_directory: str | Path, *args: Any, save_original_format: bool = False, **kwargs
    ) -> None:
        """Write our own layout: tensors under the names they have in the model.

        Transformers would rename some to those of its hub checkpoints, which the trainer's resuming
        does not undo: it would go on from random weights with no more than a warning.

        Args:
            save_directory: folder.
            *args: as for transformers.
            save_original_format: rename all the same.
            **kwargs: as for transformers.
        """
        follow_tensors(self)
        super().save_pretrained(
            save_directory, *args, save_original_format=save_original_format, **kwargs
        )


_CLASSES: list[type[DisTimeForConditionalGeneration]] = []


def register(cls: type[DisTimeForConditionalGeneration]) -> type[DisTimeForConditionalGeneration]:
    """Make a backbone's class known to `DisTimeForConditionalGeneration` and to transformers.

    Its `config_class` has a `model_type` of its own, by which saved folders are told apart.
    """
    _CLASSES.append(cls)
    AutoConfig.register(cls.config_class.model_type, cls.config_class)
    AutoModelForImageTextToText.register(cls.config_class, cls)
    return cls


def class_of(path: Path) -> type[DisTimeForConditionalGeneration]:
    """Return the class of the backbone whose checkpoint a folder holds.

    Raises:
        CheckpointError: it has no config.json, or one that no backbone reads.
    """
    config = read_json(path / "config.json")
    for cls in _CLASSES:
        if config.get("model_type") == cls.config_class.model_type or cls.reads(config):
            return cls
    raise CheckpointError(
        f"{path / 'config.json'}: model_type {config.get('model_type')!r} belongs to no backbone "
        f"of DisTime; there are {', '.join(cls.__name__ for cls in _CLASSES)}"
    )


def _warn_of_rounding(path: Path, dtypes: dict[str, torch.dtype], loaded: torch.dtype) -> None:
    rounded = [name for name, dtype in dtypes.items() if widest((dtype, loaded)) != loaded]
    if rounded:
        logger.warning(
            "%s: %d of %d tensors are %s in the files and were rounded to %s, the type of the "
            "others, such as %s; dtype=torch.float32 keeps their bits",
            path, len(rounded), len(dtypes), dtypes[rounded[0]], loaded, rounded[0],
        )  # fmt: skip
