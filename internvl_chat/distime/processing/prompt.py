"""The exact text and token ids that the model reads: turns, and the media in their place.

Everything that published weights were trained on is spelled out here and in
`distime.backbones.template`; what they are asked is in `distime.processing.questions`. A user turn
of InternVL with a video of three frames::

    <FRAME_TIME_REF>: <img><IMG_CONTEXT>...<IMG_CONTEXT></img>
    <FRAME_TIME_REF>: <img><IMG_CONTEXT>...<IMG_CONTEXT></img>
    <FRAME_TIME_REF>: <img><IMG_CONTEXT>...<IMG_CONTEXT></img>
    When does the person sit down?

Training text and generation prompts of the same turns have the same ids, so that a prefix
computed for one serves the other.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from distime.backbones.template import (
    IMAGE_TAG,
    INTERNVL2_5_SYSTEM,
    NO_MEDIA,
    ROLES,
    VIDEO_TAG,
    ChatTemplate,
    Media,
    PromptError,
    image_block,
    video_block,
)
from distime.model.token_index import IGNORE_INDEX
from distime.model.tokens import FRAME_TIME_REF
from distime.processing.tokenizer import TokenIds, encode, start_ids

__all__ = [
    "IGNORE_INDEX",
    "INTERNVL2_5_SYSTEM",
    "ChatTemplate",
    "Media",
    "PromptError",
    "image_block",
    "video_block",
]

# ------------------------------------------------------------------------- turns and media


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation: ``speaker`` is "system", "human" or "gpt"."""

    speaker: str
    text: str

    @classmethod
    def of(cls, turn: Turn | Mapping[str, str]) -> Turn:
        """Accept a turn as it stands in annotation files: ``{"from": ..., "value": ...}``."""
        return turn if isinstance(turn, Turn) else cls(turn["from"], turn["value"])


# ------------------------------------------------------------------------------- token ids


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A training sequence, or the suffix of one behind a shared prefix.

    Attributes:
        input_ids: L token ids.
        labels: L ids, -100 where nothing is learned.
        num_time_stamps: ``<TIME_STAMP>`` tokens in it: the first that many intervals of the
            item's targets belong to it. Fewer than the item's only when it was cut.
        num_cut: tokens cut off its end to fit ``max_length``.
    """

    input_ids: list[int]
    labels: list[int]
    num_time_stamps: int
    num_cut: int = 0

    @property
    def is_truncated(self) -> bool:
        """True when tokens were cut off."""
        return self.num_cut > 0


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    question: str,
    media: Media = NO_MEDIA,
    *,
    history: Sequence[tuple[str, str]] = (),
    join: str = "\n",
) -> list[int]:
    """Return the ids of a generation prompt; the media stand in its first human turn.

    Args:
        tokenizer: a tokenizer of `load_tokenizer`.
        template: the chat template.
        question: the user's text, with or without media tags.
        media: what it is about.
        history: earlier (question, answer) pairs.
        join: what stands between frames and question, see `JOIN`.

    Raises:
        PromptError: media tags or tokens in the text do not match the media.
    """
    questions = [asked for asked, _ in history] + [question]
    questions[0] = media.place(questions[0], join, template)
    _refuse_media_tags(questions[1:] + [answer for _, answer in history])
    history = [(asked, answer) for asked, (_, answer) in zip(questions, history, strict=False)]
    text = template.prompt(questions[-1], history)
    ids = start_ids(tokenizer) + _encode_with_media(tokenizer, text, media, template)
    _check_media_tokens(ids, TokenIds.of(tokenizer, template), media, template)
    return ids


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    conversations: Sequence[Turn | Mapping[str, str]],
    media: Media = NO_MEDIA,
    *,
    max_length: int | None = None,
) -> Encoded:
    """Return the training sequence of a conversation.

    Turns are tokenised one by one. Supervised are the assistant's text and its ``<|im_end|>``,
    not the header before it nor the newline after it.

    Args:
        tokenizer: a tokenizer of `load_tokenizer`.
        template: the chat template; a first "system" turn replaces its system message.
        conversations: the turns, as `Turn` or as annotation files write them.
        media: what the conversation is about.
        max_length: longest sequence. Only the tail of answers is ever cut, and
            ``Encoded.num_cut`` and ``Encoded.num_time_stamps`` say what went.

    Raises:
        PromptError: unknown speakers, media tags or tokens that do not match the media, nothing
            supervised, or a cut that would reach the frames or the first supervised token.
    """
    tokens = TokenIds.of(tokenizer, template)
    header_length = len(_encode_once(tokenizer, template.header("gpt")))
    input_ids = start_ids(tokenizer)
    labels = [IGNORE_INDEX] * len(input_ids)
    turns = place_media(conversations, media, template)
    if turns[0].speaker != "system" and template.system_message is not None:
        turns.insert(0, Turn("system", template.system_message))
    for turn in turns:
        text = template.turn(turn.speaker, turn.text)
        ids = _encode_with_media(tokenizer, text, media, template)
        turn_labels = [IGNORE_INDEX] * len(ids)
        if turn.speaker == "gpt":
            # A tokenizer that drops white space has no newline at the end.
            stop = len(ids) if ids[-1] == tokens.im_end else len(ids) - 1
            turn_labels[header_length:stop] = ids[header_length:stop]
        input_ids += ids
        labels += turn_labels

    _check_media_tokens(input_ids, tokens, media, template)
    num_cut = 0 if max_length is None else max(0, len(input_ids) - max_length)
    if num_cut:
        _check_cut(input_ids, labels, tokens, max_length)
        del input_ids[max_length:], labels[max_length:]
    if all(label == IGNORE_INDEX for label in labels):
        raise PromptError('nothing to learn: the conversation has no "gpt" turn')
    return Encoded(input_ids, labels, input_ids.count(tokens.time_stamp), num_cut)


@functools.lru_cache(maxsize=64)
def _encode_once(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(encode(tokenizer, text))


def _encode_with_media(
    tokenizer: PreTrainedTokenizerBase, text: str, media: Media, template: ChatTemplate
) -> list[int]:
    """Return the ids of a text; where its media have words for the slots' times, with these."""
    ids = _encode_with_block(tokenizer, text, media, template)
    slot = TokenIds.of(tokenizer, template).frame_time_ref
    if not media.slot_words or ids.count(slot) != len(media.slot_words):
        return ids
    words = iter(media.slot_words)
    return [
        one for i in ids for one in (_encode_once(tokenizer, next(words)) if i == slot else (i,))
    ]


def _encode_with_block(
    tokenizer: PreTrainedTokenizerBase, text: str, media: Media, template: ChatTemplate
) -> list[int]:
    """Return the ids of a text, its video's block tokenised once for each number of frames.

    The block is nearly all of the text: thousands of tokens beside a question's dozens.
    """
    block = template.video_block(media.num_frames, media.tokens_per_image)
    parts = text.split(block) if block else []
    if len(parts) != 2 or any(FRAME_TIME_REF in part for part in parts):
        return encode(tokenizer, text)
    # Text is cut at added tokens first, and the block begins and ends with one: one added token in
    # its place leaves the ids of what stands around it as they are.
    ids = encode(tokenizer, FRAME_TIME_REF.join(parts))
    place = ids.index(TokenIds.of(tokenizer, template).frame_time_ref)
    return [*ids[:place], *_encode_once(tokenizer, block), *ids[place + 1 :]]


def encode_items(
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    media: Media,
    items: Sequence[Sequence[Turn | Mapping[str, str]]],
    *,
    max_length: int | None = None,
) -> tuple[list[int], list[Encoded]]:
    """Split conversations about the same media into one shared prefix and a suffix for each.

    ``prefix + suffix.input_ids`` is, token for token, `encode_conversation` of the item alone.
    The prefix holds all media tokens, no ``<TIME_STAMP>`` and nothing supervised, and each suffix
    begins with an unsupervised token: the prefix predicts nothing that is learned.

    Args:
        tokenizer: a tokenizer of `load_tokenizer`.
        template: the chat template.
        media: what all the items are about.
        items: one conversation each.
        max_length: longest prefix + suffix, see `encode_conversation`.

    Returns:
        The prefix's ids and one `Encoded` suffix per item.

    Raises:
        PromptError: an item cannot be encoded (it is named by its index), or items differ
            before the end of the media.
    """
    if not items:
        raise PromptError("no items to share a prefix")
    tokens = TokenIds.of(tokenizer, template)
    encoded = []
    for index, item in enumerate(items):
        try:
            encoded.append(
                encode_conversation(tokenizer, template, item, media, max_length=max_length)
            )
        except PromptError as error:
            raise PromptError(f"item {index}: {error}") from None
    return share_prefix(tokens, encoded)


def share_prefix(tokens: TokenIds, encoded: Sequence[Encoded]) -> tuple[list[int], list[Encoded]]:
    """Split whole sequences about the same media as `encode_items` does.

    Raises:
        PromptError: they differ before the end of the media.
    """
    length = common_prefix(
        [one.input_ids[: _shareable(one, tokens) + 1] for one in encoded],
        _media_end(encoded[0].input_ids, tokens),
    )
    suffixes = [
        dataclasses.replace(one, input_ids=one.input_ids[length:], labels=one.labels[length:])
        for one in encoded
    ]
    return encoded[0].input_ids[:length], suffixes


def common_prefix(sequences: Sequence[Sequence[int]], min_length: int = 0) -> int:
    """Return how many ids the sequences share from the start, leaving each at least one more.

    Args:
        sequences: lists of token ids, none empty.
        min_length: the least that must be shared: the end of the media, see `media_length`.

    Raises:
        PromptError: fewer than ``min_length`` ids are shared.
    """
    shared = len(os.path.commonprefix([list(ids) for ids in sequences]))
    length = min(shared, min(map(len, sequences)) - 1)
    if length < min_length:
        raise PromptError(
            f"only {length} tokens are shared, but the frames reach to token {min_length}: items "
            "that share a video need the same system message, the same words before <video> and "
            "no <TIME_STAMP> there"
        )
    return length


def media_length(
    tokenizer: PreTrainedTokenizerBase,
    input_ids: Sequence[int],
    template: ChatTemplate = ChatTemplate(),  # noqa: B008 - it is frozen
) -> int:
    """Return the length of the shortest prefix with every media token (0 without media)."""
    return _media_end(input_ids, TokenIds.of(tokenizer, template))


def place_media(
    conversations: Sequence[Turn | Mapping[str, str]],
    media: Media = NO_MEDIA,
    template: ChatTemplate = ChatTemplate(),  # noqa: B008 - it is frozen
) -> list[Turn]:
    """Return a conversation's turns with its media in the first human turn.

    Raises:
        PromptError: an unknown speaker, no human turn at the start, or media tags that do not
            match the media or stand in another turn.
    """
    turns = [Turn.of(turn) for turn in conversations]
    unknown = sorted({turn.speaker for turn in turns} - set(ROLES))
    if unknown:
        raise PromptError(f"unknown speaker {unknown[0]!r}: use one of {', '.join(ROLES)}")
    first = 1 if turns and turns[0].speaker == "system" else 0
    if len(turns) == first or turns[first].speaker != "human":
        raise PromptError('the conversation must begin with a "human" turn (after "system")')
    _refuse_media_tags([turn.text for i, turn in enumerate(turns) if i != first])
    turns[first] = Turn("human", media.place(turns[first].text, template=template))
    return turns


def _refuse_media_tags(texts: Sequence[str]) -> None:
    for tag in (VIDEO_TAG, IMAGE_TAG):
        if any(tag in text for text in texts):
            raise PromptError(f"{tag} outside the first human turn: move the tag there")


def _check_media_tokens(
    ids: list[int], tokens: TokenIds, media: Media, template: ChatTemplate
) -> None:
    for names, wanted, expected in (
        (template.placeholders, tokens.placeholders, media.num_image_tokens),
        (
            (FRAME_TIME_REF,),
            (tokens.frame_time_ref,),
            0 if media.slot_words else media.num_frames,
        ),
    ):
        if (found := sum(map(ids.count, wanted))) != expected:
            name = " and ".join(names)
            raise PromptError(
                f"{found} {name} tokens where the media have {expected}: the text itself must not "
                f"contain {name}"
            )


def _check_cut(ids: list[int], labels: list[int], tokens: TokenIds, max_length: int) -> None:
    """Refuse to cut anything but the tail of answers."""
    if (end := _media_end(ids, tokens)) > max_length:
        raise PromptError(
            f"max_length {max_length} cuts into the frames, which reach to token {end} of "
            f"{len(ids)}: raise max_length or take fewer frames"
        )
    if all(label == IGNORE_INDEX for label in labels[:max_length]):
        raise PromptError(
            f"max_length {max_length} leaves nothing supervised of {len(ids)} tokens: raise "
            "max_length, take fewer frames or shorten the question"
        )


def _media_end(ids: Sequence[int], tokens: TokenIds) -> int:
    media = {*tokens.placeholders, tokens.frame_time_ref}
    return next((i + 1 for i in reversed(range(len(ids))) if ids[i] in media), 0)


def _shareable(one: Encoded, tokens: TokenIds) -> int:
    """Length of the longest prefix without time tokens whose next token is not supervised."""
    first_supervised = next(i for i, label in enumerate(one.labels) if label != IGNORE_INDEX)
    if tokens.time_stamp in one.input_ids:
        return min(first_supervised - 1, one.input_ids.index(tokens.time_stamp))
    return first_supervised - 1
