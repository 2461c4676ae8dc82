"""One computation at a time: a thread a model, and a queue in which newer requests take the place of older ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Job:
    """Something to compute.

    Attributes:
        owner: who asked: its jobs end with it.
        lane: a newer job of the same owner and lane takes the place of this one.
        run: computes; is told by :attr:`unwanted` when nobody waits any more.
        dropped: is called instead if the job never runs.
    """

    owner: Any
    lane: str
    id: int
    run: Callable[[Job], None]
    dropped: Callable[[Job], None]
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()


class Worker:
    """A thread that runs jobs one after the other, in the order in which they came.

    ``run`` and ``dropped`` of a job answer for their own errors: what they raise is swallowed, and the thread lives on.

    >>> done = threading.Event()
    >>> worker = Worker("example")
    >>> _ = worker.submit(Job("me", "main", 1, run=lambda job: done.set(), dropped=print))
    >>> done.wait(5)
    True
    >>> worker.close()
    """

    def __init__(self, name: str) -> None:
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name=f"tl_jacobian {name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> int:
        """Take a job; returns how many are before it. Older jobs of its lane aren't wanted any more."""
        with self._changed:
            old = [j for j in self._jobs if (j.owner, j.lane) == (job.owner, job.lane)]
            if (now := self._running) is not None and (now.owner, now.lane) == (job.owner, job.lane):
                now.stop()
            self._drop(old)
            self._jobs.append(job)
            ahead = len(self._jobs) - 1 + (self._running is not None)
            self._changed.notify()
        self._tell(old)
        return ahead

    def cancel(self, owner: Any, id: int | None = None) -> None:
        """An owner's job with that number isn't wanted any more; None: all of its jobs."""
        with self._changed:
            old = [j for j in self._jobs if j.owner is owner and id in (None, j.id)]
            if (now := self._running) is not None and now.owner is owner and id in (None, now.id):
                now.stop()
            self._drop(old)
        self._tell(old)

    def close(self) -> None:
        """Stop what runs, drop what waits, and end the thread."""
        with self._changed:
            self._open = False
            old = list(self._jobs)
            if self._running is not None:
                self._running.stop()
            self._drop(old)
            self._changed.notify()
        self._tell(old)

    @property
    def waiting(self) -> int:
        """How many jobs wait or run."""
        with self._changed:
            return len(self._jobs) + (self._running is not None)

    def _drop(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.stop()
            self._jobs.remove(job)

    @staticmethod
    def _tell(jobs: list[Job]) -> None:
        for job in jobs:
            with suppress(Exception):
                job.dropped(job)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or not self._open)
                if not self._open:
                    return
                self._running = job = self._jobs.popleft()
            with suppress(Exception):
                job.run(job)
            with self._changed:
                self._running = None
