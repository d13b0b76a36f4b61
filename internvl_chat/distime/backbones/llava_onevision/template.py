"""How LLaVA-OneVision writes turns and pictures, as transformers' chat template does."""

from __future__ import annotations

from dataclasses import dataclass

from distime.backbones.template import IMAGE_TAG, VIDEO_TAG, ChatTemplate
from distime.model.tokens import FRAME_TIME_REF, NEW_TOKENS

# The tags of annotation files are tokens of this backbone: `Media.place` has replaced every tag by
# the tokens of what it stands for before anything is tokenised.
VIDEO, IMAGE = VIDEO_TAG, IMAGE_TAG
ADDED_TOKENS = (IMAGE, VIDEO, *NEW_TOKENS)


@dataclass(frozen=True)
class LlavaOnevisionTemplate(ChatTemplate):
    """ChatML without a system turn; a time token before the tokens of every frame."""

    system_message: str | None = None

    placeholders = (VIDEO, IMAGE)
    added_tokens = ADDED_TOKENS
    between_slots = ""
    after_video = VIDEO  # the newline

    def image_block(self, num_tokens: int) -> str:
        """Return the text that stands for one image of ``num_tokens`` visual tokens."""
        return IMAGE * num_tokens

    def slot_block(self, num_tokens: int) -> str:
        """Return the text that stands for one frame, its time token first."""
        return FRAME_TIME_REF + VIDEO * num_tokens
