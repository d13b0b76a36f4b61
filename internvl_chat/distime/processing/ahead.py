"""Preparing inputs in background threads while the model works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

N, T = TypeVar("N"), TypeVar("T")


def load_ahead(
    items: Iterable[N], load: Callable[[N], T], workers: int
) -> Iterator[tuple[N, Future[T]]]:
    """Call `load` for each item in background threads, `workers` ahead of the consumer.

    Threads are enough: decoding, resizing and tokenising all work without Python's lock.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="video")
    waiting: deque[tuple[N, Future[T]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(load, item)))
            if len(waiting) > workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
