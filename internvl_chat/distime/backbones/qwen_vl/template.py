"""How Qwen-VL writes turns and pictures: a time token where Qwen3-VL writes `<1.3 seconds>`."""

from __future__ import annotations

from dataclasses import dataclass

from distime.backbones.template import ChatTemplate
from distime.model.tokens import FRAME_TIME_REF, NEW_TOKENS

VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
ADDED_TOKENS = (VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD, *NEW_TOKENS)


@dataclass(frozen=True)
class QwenTemplate(ChatTemplate):
    """ChatML; every slot stands between marks of its own, its time token before them."""

    system_message: str | None = None

    placeholders = (VIDEO_PAD, IMAGE_PAD)
    added_tokens = ADDED_TOKENS
    between_slots = ""

    def image_block(self, num_tokens: int) -> str:
        """Return the text that stands for one image of ``num_tokens`` visual tokens."""
        return f"{VISION_START}{IMAGE_PAD * num_tokens}{VISION_END}"

    def slot_block(self, num_tokens: int) -> str:
        """Return the text that stands for one slot of a video, its time token first."""
        return f"{FRAME_TIME_REF}{VISION_START}{VIDEO_PAD * num_tokens}{VISION_END}"
