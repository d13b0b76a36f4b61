"""How long every sequence of a data set will be, counted once and kept beside the annotation.

Ordering rows by length and packing them need all lengths before the first step. Nothing is decoded,
and frames are not tokenised: what stands for them has a known length. A file of lengths is named
after all that decides them (annotation, tokenizer, settings), so that a stale one is never read.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerBase

from distime.backbones.template import ChatTemplate, Media
from distime.data.schema import TrainingItem, examine, in_own_words
from distime.errors import DisTimeError
from distime.files import file_digest, written_whole
from distime.processing.prompt import Turn, place_media
from distime.processing.tokenizer import encode, start_ids, text_lengths

if TYPE_CHECKING:
    from distime.data.dataset import TrainingData
    from distime.processing.processor import DisTimeProcessor

logger = logging.getLogger(__name__)

_AT_ONCE = 2048
_FORMAT = 1  # of the files; another number leaves those of earlier versions unread


def count_lengths(data: TrainingData, indices: Sequence[int]) -> Iterator[int]:
    """Yield the tokens of groups, the shared ones once; 0 for a group that cannot be read.

    Args:
        data: the data set.
        indices: of its groups, best in ascending order, in which files are read fastest.
    """
    limit = data.settings.max_seq_length
    gc.freeze()  # a million groups stay: looking whether they are garbage takes a fifth of the time
    for start in range(0, len(indices), _AT_ONCE):
        chunk = indices[start : start + _AT_ONCE]
        uncut = dict(zip(chunk, _count_uncut(data, chunk), strict=True))
        for index, length in uncut.items():
            exact = length is None or length > limit
            yield _count_exactly(data, index) if exact else length


def _count_uncut(data: TrainingData, indices: Sequence[int]) -> list[int | None]:
    """Tokens of groups of one item before any cut, all tokenised at once; None for other groups."""
    lengths: list[int | None] = [None] * len(indices)
    positions, items, medias = [], [], []
    for position, item in _single_items(data, indices):
        lengths[position] = 0
        if item is None:
            continue
        try:
            media = data.expected_media(item)
        except (DisTimeError, OSError):
            continue
        positions.append(position)
        items.append(dataclasses.replace(item, turns=in_own_words(data.processor, item)))
        medias.append(media)
    counted = conversation_lengths(data.processor, items, medias)
    for position, length in zip(positions, counted, strict=True):
        lengths[position] = length
    return lengths


def _single_items(
    data: TrainingData, indices: Sequence[int]
) -> Iterator[tuple[int, TrainingItem | None]]:
    """Yield the positions of groups of one item with that item, None for one that is broken."""
    of_source: dict[int, list[tuple[int, int]]] = {}
    for position, index in enumerate(indices):
        source, members = data.groups[index]
        if len(members) == 1:
            of_source.setdefault(source, []).append((position, members[0]))
    for number, wanted in of_source.items():
        source, lines = data.sources[number], data.indices[number]
        records = lines.records(member for _, member in wanted)
        for (position, member), record in zip(wanted, records, strict=True):
            yield position, examine(record, source, lines.line_number(member))[0]


def conversation_lengths(
    processor: DisTimeProcessor, items: Sequence[TrainingItem], medias: Sequence[Media]
) -> list[int]:
    """Return the lengths of `encode_conversation` without a limit, of many items at once.

    Args:
        processor: its tokenizer and template are used.
        items: valid ones.
        medias: what each is about.
    """
    tokenizer, template = processor.tokenizer, processor.template
    start, system = len(start_ids(tokenizer)), template.system_message
    texts, known = [], []
    for item, media in zip(items, medias, strict=True):
        thin, left_out = _without_pictures(tokenizer, template, media)
        turns = place_media(item.turns, thin, template)
        if turns[0].speaker != "system" and system is not None:
            turns.insert(0, Turn("system", system))
        texts.append([template.turn(turn.speaker, turn.text) for turn in turns])
        words = sum(len(encode(tokenizer, one)) - 1 for one in media.slot_words)
        known.append(start + left_out + words)
    counted = iter(text_lengths(tokenizer, [text for turns in texts for text in turns]))
    return [
        length + sum(itertools.islice(counted, len(turns)))
        for length, turns in zip(known, texts, strict=True)
    ]


@functools.lru_cache(maxsize=1024)
def _without_pictures(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, media: Media
) -> tuple[Media, int]:
    """Return media that take the same place with few tokens, and how many more they really take.

    Blocks begin and end with added tokens, at which text is cut before it is tokenised: what stands
    in a block changes nothing around it.
    """
    if not media.num_frames:
        tiles = (1,) * len(media.image_tiles)
        return Media(1, image_tiles=tiles), media.num_image_tokens - len(tiles)
    whole = encode(tokenizer, template.video_block(media.num_frames, media.tokens_per_image))
    thin = encode(tokenizer, template.video_block(1, 0))
    return Media(0, num_frames=1), len(whole) - len(thin)


def _count_exactly(data: TrainingData, index: int) -> int:
    """Tokens of a group of several items, or of one that may be cut."""
    try:
        items, _ = data.read(index)
        if not items:
            return 0
        media = data.expected_media(items[0])
        prefix, encoded, _ = data.encode(items, media, data.settings.max_seq_length)
    except (DisTimeError, OSError):
        return 0
    return len(prefix) + sum(len(one.input_ids) for _, one in encoded)


# ------------------------------------------------------------------------------------ files


class KeptLengths:
    """The lengths of a data set, in one file for each of its sources.

    Args:
        data: the data set.
        folder: where files go if the annotation's own folder takes none.
    """

    def __init__(self, data: TrainingData, folder: Path):
        self.data, self.folder = data, folder
        names = [f"{s.annotation.name}.lengths-{k}.npy" for s, k in _keys(data)]
        self._paths = [
            (source.annotation.parent / name, folder / name)
            for source, name in zip(data.sources, names, strict=True)
        ]
        sources = np.array([source for source, _ in data.groups])
        self._sizes = np.bincount(sources, minlength=len(data.sources)).tolist()

    def load(self) -> list[int] | None:
        """Return the lengths of all groups, or None if a source's are not kept."""
        lengths: list[int] = []
        for paths, size in zip(self._paths, self._sizes, strict=True):
            kept = next((found for path in paths if (found := _load(path, size)) is not None), None)
            if kept is None:
                return None
            lengths += kept.tolist()
        return lengths

    def save(self, lengths: Sequence[int]) -> None:
        """Keep the lengths of all groups; where nothing can be written, say so and go on."""
        start = 0
        for paths, size in zip(self._paths, self._sizes, strict=True):
            values = np.array(lengths[start : start + size], np.int32)
            start += size
            if not any(_save(path, values) for path in paths):
                logger.warning(
                    "%s: the lengths of sequences cannot be kept there", paths[-1].parent
                )


def _load(path: Path, size: int) -> np.ndarray | None:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.shape == (size,) else None


def _save(path: Path, values: np.ndarray) -> bool:
    try:
        with written_whole(path) as partial:
            np.save(partial, values)
    except OSError:
        return False
    logger.info("%s: lengths of sequences, for the next run", path)
    return True


def _keys(data: TrainingData) -> Iterator[tuple]:
    """Yield each source with a digest of all that decides the lengths of its groups."""
    processor, settings = data.processor, data.settings
    common = (
        _FORMAT,
        repr(processor.settings),
        repr(processor.template),
        _fingerprint(processor.tokenizer),
        settings.max_num_frame,
        settings.max_seq_length,
        settings.share_video_prefix and settings.max_items_per_group,
        settings.dynamic_image_size,
    )
    for source in data.sources:
        content = file_digest(source.annotation)
        described = dataclasses.replace(source, name="", annotation=Path(), length=None)
        key = hashlib.sha256(repr((common, content, described)).encode()).hexdigest()
        yield source, key[:16]


def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.is_fast:
        text = tokenizer.backend_tokenizer.to_str()
    else:
        text = repr((type(tokenizer), sorted(tokenizer.get_vocab().items())))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
