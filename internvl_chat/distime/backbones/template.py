"""How a conversation and its media are written: what a backbone's chat template has to say.

The templates of all backbones are ChatML; they differ in what stands around a picture. The default
is InternVL2.5's, as published weights of DisTime know it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from distime.errors import DisTimeError
from distime.model.tokens import (
    FRAME_TIME_REF,
    IM_END,
    IM_START,
    IMG_CONTEXT,
    IMG_END,
    IMG_START,
    SPECIAL_TOKENS,
)

VIDEO_TAG, IMAGE_TAG = "<video>", "<image>"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
"""Who speaks: the name in annotation files -> the name in the prompt."""

INTERNVL2_5_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
    "多模态大语言模型。"
)


class PromptError(DisTimeError):
    """A conversation cannot become a sequence; the message says why and what to change."""


def image_block(num_tokens: int) -> str:
    """Return the text that stands for one image of ``num_tokens`` visual tokens in InternVL."""
    return f"{IMG_START}{IMG_CONTEXT * num_tokens}{IMG_END}"


def video_block(num_frames: int, tokens_per_image: int) -> str:
    """Return what stands for a video in InternVL: a time token and an image for each frame."""
    return ChatTemplate().video_block(num_frames, tokens_per_image)


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """How turns and media are written; a backbone's own is a subclass.

    A *slot* is what one time token stands before: a frame, or the frames that the vision tower
    merges into one.

    Attributes:
        system_message: the text of the system turn, None for no system turn. A conversation's
            own first "system" turn replaces it.
        placeholders: names of the tokens that features of pictures replace.
        added_tokens: tokens that the tokenizer must have; those missing are added in this order.
        between_slots: what stands between two slots of a video.
        after_video: what stands behind the last slot.
    """

    system_message: str | None = INTERNVL2_5_SYSTEM

    placeholders: ClassVar[tuple[str, ...]] = (IMG_CONTEXT,)
    added_tokens: ClassVar[tuple[str, ...]] = tuple(SPECIAL_TOKENS)
    between_slots: ClassVar[str] = "\n"
    after_video: ClassVar[str] = ""

    def header(self, speaker: str) -> str:
        """Return what opens a turn."""
        return f"{IM_START}{ROLES[speaker]}\n"

    def turn(self, speaker: str, text: str) -> str:
        """Return a whole turn with its header, end token and final newline."""
        return f"{self.header(speaker)}{text}{IM_END}\n"

    def prompt(self, question: str, history: Sequence[tuple[str, str]] = ()) -> str:
        """Return the text that the model continues with its answer.

        Args:
            question: the user's text, media blocks included.
            history: earlier (question, answer) pairs.
        """
        text = "" if self.system_message is None else self.turn("system", self.system_message)
        for asked, answered in history:
            text += self.turn("human", asked) + self.turn("gpt", answered)
        return text + self.turn("human", question) + self.header("gpt")

    def image_block(self, num_tokens: int) -> str:
        """Return the text that stands for one image of ``num_tokens`` visual tokens."""
        return image_block(num_tokens)

    def slot_block(self, num_tokens: int) -> str:
        """Return the text that stands for one slot of a video, its time token first."""
        return f"{FRAME_TIME_REF}: {self.image_block(num_tokens)}"

    def video_block(self, num_slots: int, num_tokens: int) -> str:
        """Return the text that stands for a video of slots of ``num_tokens`` visual tokens each.

        It begins and ends with an added token, so that it can be tokenised on its own.
        """
        if not num_slots:
            return ""
        return self.between_slots.join([self.slot_block(num_tokens)] * num_slots) + self.after_video


INTERNVL = ChatTemplate()


@dataclasses.dataclass(frozen=True)
class Media:
    """What a conversation looks at: the slots of a video, or images, or nothing.

    Attributes:
        tokens_per_image: placeholder tokens of one slot, or of one tile of an image.
        num_frames: slots of the video, 0 where there is none.
        image_tiles: tiles of each image, in order.
        num_extra: placeholder tokens behind the last slot (`ChatTemplate.after_video`).
        slot_words: in the place of each slot's `<FRAME_TIME_REF>`, for models that read times as
            words; empty for the others.
    """

    tokens_per_image: int = 0
    num_frames: int = 0
    image_tiles: tuple[int, ...] = ()
    num_extra: int = 0
    slot_words: tuple[str, ...] = ()

    def __post_init__(self):
        if self.num_frames and self.image_tiles:
            raise PromptError("an item has a video or images, not both")

    @property
    def num_image_tokens(self) -> int:
        """Placeholder tokens of everything together."""
        tiles = self.num_frames + sum(self.image_tiles)
        return self.tokens_per_image * tiles + self.num_extra

    def place(self, text: str, join: str = "\n", template: ChatTemplate = INTERNVL) -> str:
        """Return the first human turn with its ``<video>`` or ``<image>`` tags filled in.

        A tag is replaced where it stands; what follows it is left as written. Without a tag the
        video (or the only image) comes first, then ``join``, then the text.

        Raises:
            PromptError: the tags do not match the media.
        """
        videos, images = text.count(VIDEO_TAG), text.count(IMAGE_TAG)
        if self.num_frames:
            if images or videos > 1:
                raise PromptError(
                    f"an item with a video takes one {VIDEO_TAG} tag and no {IMAGE_TAG}, "
                    f"found {videos} and {images}: keep one {VIDEO_TAG} in the first turn"
                )
            block = template.video_block(self.num_frames, self.tokens_per_image)
            return text.replace(VIDEO_TAG, block) if videos else block + join + text
        if videos:
            raise PromptError(f"{VIDEO_TAG} in an item without a video: remove the tag")
        blocks = [template.image_block(n * self.tokens_per_image) for n in self.image_tiles]
        if not images and len(blocks) == 1:
            return blocks[0] + join + text
        if images != len(blocks):
            raise PromptError(
                f"{images} {IMAGE_TAG} tags for {len(blocks)} images: write one tag per image"
            )
        first, *rest = text.split(IMAGE_TAG)
        return first + "".join(block + piece for block, piece in zip(blocks, rest, strict=True))


NO_MEDIA = Media()
