"""Which items may be trained behind one copy of their media."""

from __future__ import annotations

from typing import Any

import numpy as np

from distime.data.dialects import in_our_keys
from distime.data.lines import JsonlIndex
from distime.data.problems import AnnotationError
from distime.data.schema import media_of
from distime.model.tokens import TIME_STAMP
from distime.processing.prompt import IMAGE_TAG, VIDEO_TAG


def group_items(index: JsonlIndex, numbers: np.ndarray, most: int) -> list[tuple[int, ...]]:
    """Bring together the items of a file that share all up to the end of their media.

    Args:
        index: of the file.
        numbers: of the items, in order; one may occur several times.
        most: items of one group.

    Returns:
        the numbers of each group. An item that shares nothing, or cannot be read, is alone.
    """
    unique = np.unique(numbers).tolist()
    keys = {n: key_of(record) for n, record in zip(unique, index.records(unique), strict=True)}
    members_of: dict[object, list[int]] = {}
    for position, number in enumerate(numbers.tolist()):
        members_of.setdefault(keys[number] or position, []).append(number)
    return [
        tuple(members[start : start + most])
        for members in members_of.values()
        for start in range(0, len(members), most)
    ]


def key_of(record: Any) -> tuple | None:
    """Return what a record's sequence is up to the end of its media; None if it shares nothing.

    That is its system message, what its question says before the last tag, and the media.
    """
    if isinstance(record, AnnotationError) or not isinstance(record, dict):
        return None
    record, _ = in_our_keys(record)
    video, images = media_of(record)
    media = [video] if video else images
    if not isinstance(media, list) or not media or not all(isinstance(one, str) for one in media):
        return None
    turns = record.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns[:2]):
        return None
    texts = {turn.get("from"): turn.get("value") for turn in turns[:2][::-1]}
    system, question = texts.get("system", ""), texts.get("human")
    if not isinstance(system, str) or not isinstance(question, str):
        return None
    before = question.rpartition(VIDEO_TAG if video else IMAGE_TAG)[0]
    if TIME_STAMP in system + before:  # its time is its own
        return None
    return bool(video), tuple(media), "system" in texts, system, before
