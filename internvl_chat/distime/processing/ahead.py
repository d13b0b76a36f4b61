"""Preparing inputs in background threads while the model works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def load_ahead(
    numbers: Iterable[int], load: Callable[[int], T], workers: int
) -> Iterator[tuple[int, Future[T]]]:
    """Call `load` for numbers in background threads, `workers` ahead of the consumer.

    Threads are enough: decoding, resizing and tokenising all work without Python's lock.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="video")
    waiting: deque[tuple[int, Future[T]]] = deque()
    try:
        for number in numbers:
            waiting.append((number, pool.submit(load, number)))
            if len(waiting) > workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
