"""Stages that overlap: work read ahead of the network, work left behind for a writer, and the time each takes.

Both ends are bounded, so memory does not grow with the shot, and both hand an error to the thread that drives
them: the first one stops everything.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Clock:
    """Seconds that every stage was busy, summed over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` for a stage; from any thread."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Count the time spent inside the `with` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds so far."""
        with self._lock:
            return dict(self._seconds)


def read_ahead(items: Iterable[T], work: Callable[[T], R], *, ahead: int, threads: int) -> Generator[R, None, None]:
    """`work(item)` for every item, in order, at most `ahead` of them begun before they are asked for.

    An error of `work` is raised when its item's turn comes. Closing the iterator waits for what has begun and
    drops the rest.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="rotomem-read")
    coming: deque[Future[R]] = deque()
    order = iter(items)
    try:
        more = True
        while more or coming:
            while more and len(coming) < ahead:
                try:
                    coming.append(pool.submit(work, next(order)))
                except StopIteration:
                    more = False
            if coming:
                yield coming.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class WriteBehind(Generic[T]):
    """A thread that does `work(item)` for the items put, in order; at most `depth` wait.

    The first error ends it: what still waits is dropped, and the error is raised by the next `put` or by `finish`.
    """

    _END = object()

    def __init__(self, work: Callable[[T], None], *, depth: int = 2) -> None:
        self._work = work
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="rotomem-write", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Leave an item; waits while `depth` items wait. Raises the worker's error."""
        self._raise()
        self._queue.put(item)

    def finish(self) -> None:
        """Wait until everything put is done. Raises the worker's error. A second call does nothing."""
        if self._thread.is_alive():
            self._queue.put(self._END)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _loop(self) -> None:
        while (item := self._queue.get()) is not self._END:
            if self._error is None:
                try:
                    self._work(item)  # type: ignore[arg-type]
                except BaseException as error:
                    self._error = error
            # Nothing is held while waiting for the next item: a 4K frame is 50 MB.
            del item
