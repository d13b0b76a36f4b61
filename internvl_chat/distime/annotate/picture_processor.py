"""The processor of an image-text-to-text model, also where its video part cannot be loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from distime.model.hub import LOCAL

logger = logging.getLogger(__name__)


def load_processor(folder: Path) -> ProcessorMixin:
    """Return the processor of a folder, without running code of it or asking a network.

    The video processors of transformers need torchvision; frames are shown as pictures, so a
    processor without that part does.

    Raises:
        OSError, ValueError, KeyError, ImportError: as transformers does.
    """
    try:
        return AutoProcessor.from_pretrained(folder, **LOCAL)
    except ImportError as error:
        whole = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(folder, **LOCAL)), None)
        if whole is None or not any("video" in part for part in whole.get_attributes()):
            raise
        logger.info("the video part of its processor is left out: %s", str(error).strip())
        return _without_videos(whole).from_pretrained(folder, **LOCAL)


def _without_videos(whole: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Derive a processor that has no part for videos."""

    class WithoutVideos(whole):
        @classmethod
        def get_attributes(cls) -> list[Any]:
            return [part for part in whole.get_attributes() if "video" not in part]

    return WithoutVideos
