"""Fill the cache of features before training, with the model that is about to be trained."""

from __future__ import annotations

import logging
import operator

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import TrainingArguments

from distime.backbones import DisTimeForConditionalGeneration
from distime.data.dataset import TrainingData
from distime.data.features import FeatureCache, fill, fingerprint

logger = logging.getLogger(__name__)


def use_cached_features(
    model: DisTimeForConditionalGeneration, data: TrainingData, training: TrainingArguments
) -> None:
    """Let a data set read features instead of media, after writing those that are missing.

    Every process must call this, with the whole model; each writes its share.

    Args:
        model: vision tower and projector are frozen.
        data: its settings name the folder.
        training: device, precision, and number of decoding processes.

    Raises:
        FeatureError: the disk has not enough room.
        DataError: frames change from epoch to epoch.
    """
    parts = [_part(model, name) for name in (*model.parts.vision, *model.parts.projector)]
    half = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
    dtype = half or model.dtype
    settings = data.processor.settings
    data.features = FeatureCache(
        data.settings.cache_features,
        fingerprint(parts, dtype, settings),
        model.feature_width,
        dtype,
    )
    device = training.device

    @torch.no_grad()
    def encode(tensors: dict[str, Tensor]) -> Tensor:
        # As in the training step: with DeepSpeed the weights are half themselves, else autocast.
        with torch.autocast(device.type, half, enabled=half is not None and not training.deepspeed):
            return model.encode_images(**{k: v.to(device) for k, v in tensors.items()}).cpu()

    for part in parts:
        part.to(device)
    written = fill(
        data,
        encode,
        rank=training.process_index,
        world_size=training.world_size,
        num_workers=training.dataloader_num_workers,
    )
    for part in parts:
        part.to("cpu")
    logger.info("%s: %d files written by this process", data.features.folder, written)
    PartialState().wait_for_everyone()


def _part(model: nn.Module, name: str) -> nn.Module:
    """A module, or a module of the one parameter that has this name."""
    found = operator.attrgetter(name)(model)
    return found if isinstance(found, nn.Module) else nn.ParameterList([found])
