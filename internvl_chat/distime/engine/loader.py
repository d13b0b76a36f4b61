"""The inputs of the next jobs, prepared while the model works."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from itertools import islice

from distime.engine.jobs import Job, JobSource
from distime.processing.processor import PrefixInputs


class Given:
    """Jobs of an iterable, each taken when it is needed."""

    def __init__(self, jobs: Iterable[Job]):
        self.jobs = iter(jobs)

    def get(self, wait: bool) -> Job | None:
        """Return the next job; see `JobSource`."""
        return next(self.jobs, None)


class Loader:
    """Prepares the inputs of the next jobs in background threads.

    Threads are enough: decoding, resizing and tokenising all work without Python's lock.
    """

    def __init__(self, source: JobSource, workers: int):
        self.source, self.workers = source, workers
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="video")
        self.loading: deque[tuple[Job, Future[PrefixInputs]]] = deque()
        self.is_done = False

    def following(self) -> Job | None:
        """The next job, if one has come; it stays."""
        self._fill()
        return self.loading[0][0] if self.loading else None

    def take(self, wait: bool) -> tuple[Job, Future[PrefixInputs]] | None:
        """Return a job whose inputs are there, or, having waited, None at the end of all jobs.

        Jobs of a group come in order, others as they are loaded.

        Args:
            wait: until the first one is ready, or comes.
        """
        self._fill()
        if not self.loading:
            if not wait:
                return None
            if (job := self.source.get(wait=True)) is None:
                self.is_done = True
                return None
            self._submit(job)
        while True:
            in_order = self.loading[0][0].group is not None
            for entry in islice(self.loading, 1 if in_order else None):
                if entry[0].group is not None and not in_order:
                    break
                if entry[1].done():
                    self.loading.remove(entry)
                    return entry
            if not wait:
                return None
            # Not for ever: others may come meanwhile whose inputs are there sooner.
            wait_for([future for _, future in self.loading], 0.05, FIRST_COMPLETED)
            self._fill()

    def _fill(self) -> None:
        while len(self.loading) <= self.workers:
            if (job := self.source.get(wait=False)) is None:
                return
            self._submit(job)

    def _submit(self, job: Job) -> None:
        self.loading.append((job, self.pool.submit(job.load)))

    def close(self) -> None:
        """Begin no more."""
        self.pool.shutdown(wait=False, cancel_futures=True)
