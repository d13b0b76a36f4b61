"""An engine at work in a thread of its own, for callers on many threads: a demo, a server."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future

from distime.engine.decoding import EngineError
from distime.engine.engine import Engine
from distime.engine.jobs import Finished, Job

logger = logging.getLogger(__name__)


class Busy(EngineError):
    """As many jobs wait as may; ask again later."""


class Service:
    """Takes jobs from any thread and answers them together.

    Args:
        engine: that answers; used by this service alone.
        max_waiting: most jobs that have been given and are not finished.
    """

    def __init__(self, engine: Engine, max_waiting: int = 256):
        self.engine, self.max_waiting = engine, max_waiting
        self._given: deque[Job] = deque()
        self._futures: dict[Job, Future[Finished]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Finished]:
        """Give a job; the future has it when it is finished, also with an error.

        Raises:
            Busy: `max_waiting` jobs are unfinished already.
            EngineError: the service is closed.
        """
        with self._changed:
            if self._closed:
                raise EngineError("the service is closed")
            if len(self._futures) >= self.max_waiting:
                raise Busy(f"{self.max_waiting} requests wait already; ask again later")
            future: Future[Finished] = Future()
            future.set_running_or_notify_cancel()  # jobs are cancelled, futures are not
            self._futures[job] = future
            self._given.append(job)
            self._changed.notify()
        return future

    def __len__(self) -> int:
        """Jobs that are not finished."""
        return len(self._futures)

    def close(self, timeout: float | None = None) -> None:
        """Take no more jobs, finish those there are, and end the thread.

        Args:
            timeout: seconds to finish them in; what is left then is cancelled.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        for job in list(self._futures):
            job.cancel()
        self._thread.join()

    def get(self, wait: bool) -> Job | None:
        """The next job, for the engine; see `distime.engine.jobs.Source`."""
        with self._changed:
            while wait and not self._given and not self._closed:
                self._changed.wait()
            return self._given.popleft() if self._given else None

    def _work(self) -> None:
        while True:
            try:
                for finished in self.engine.run(self):
                    self._finish(finished)
                return
            except Exception as error:  # a defect, or no memory: whose it was cannot be told
                logger.exception("the engine failed; all requests that it had end with this error")
                with self._changed:
                    begun = [job for job in self._futures if job not in self._given]
                for job in begun:
                    self._finish(Finished(job, error=error))

    def _finish(self, finished: Finished) -> None:
        with self._changed:
            future = self._futures.pop(finished.job)
        future.set_result(finished)
