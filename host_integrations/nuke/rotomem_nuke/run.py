"""A request on its way: the worker it is given to, the thread that waits for it, what the artist sees meanwhile.

With an interface a thread talks to the worker, and Nuke's nodes are touched in the main thread alone. Without one
(`nuke -t`) everything happens in the caller.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import nuke

from .client import Engine, EngineError, Job, find_engine
from .host import Work
from .objects import HostProblem

INSTALLED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "engine.txt")
"""Holds the engine that installed this plug-in."""

_engine: Engine | None = None
_lock = threading.Lock()  # the worker does one job at a time, and is talked to by one thread at a time
_LOOK_S = 0.05
_CHOSEN = "Engine on the node's second tab"  # where the artist chooses the engine


def engine(preference: str) -> Engine:
    """The running worker, warm from the first run to the end of the session; started where there is none.

    Call it with `_lock` held. Raises EngineError with a text for the node.
    """
    global _engine
    command = find_engine(preference or _installed(), _CHOSEN)
    if _engine is not None and (not _engine.alive or _engine.command != command):
        _engine.close(0)
        _engine = None
    if _engine is None:
        _engine = Engine(command, chosen=_CHOSEN).start()
    return _engine


def _installed() -> str:
    if os.environ.get("ROTOMEM_PYTHON") or not os.path.isfile(INSTALLED):
        return ""
    with open(INSTALLED, encoding="utf-8") as file:
        path = file.read().strip()
    if not os.path.isfile(path):
        raise EngineError(
            f"The Python that installed this plug-in is gone: {path}. Run `rotomem hosts install nuke` again, or "
            f"choose another one in {_CHOSEN}."
        )
    return path


@contextlib.contextmanager
def _idle() -> Iterator[None]:
    """The engine for the main thread, which must not wait for a track to end. Raises HostProblem while one runs."""
    if not _lock.acquire(blocking=False):
        raise HostProblem("The engine is at work. Wait for it, or cancel the tracks.")
    try:
        yield
    finally:
        _lock.release()


def check_engine(preference: str) -> str:
    """Which engine answers. Raises EngineError, HostProblem."""
    with _idle():
        running = engine(preference)
        return f"rotomem {running.version} answers. Models: {', '.join(running.models)}. ({running.command[0]})"


def close_engine() -> str:
    """End the worker, which frees the memory that its model holds. Raises HostProblem while it works."""
    global _engine
    with _idle():
        if _engine is not None:
            _engine.close()
        _engine = None
    return "The engine is closed. The next track starts it again."


class Run:
    """One press of a Track button: the jobs of all views, in order.

    say(text)         a line for the node's status
    end(run)          when all is over: `problem` tells what went wrong, `reports` what was written, a view each
    """

    def __init__(
        self,
        node: nuke.Node,
        work: list[Work],
        preference: str,
        say: Callable[[Run, str], None],
        end: Callable[[Run], None],
    ) -> None:
        self.node = node
        self.work = work
        self.name = node.name()
        self.reports: list[tuple[str, Any]] = []
        self.problem = ""
        self.cancelled = threading.Event()
        self._preference = preference
        self._say, self._end = say, end

    def start(self) -> None:
        """Begin; returns at once where there is an interface, when all is over where there is none."""
        if nuke.GUI:
            threading.Thread(target=self._thread, name="rotomem", daemon=True).start()
        else:
            self._work(None, self._told)

    def _told(self, text: str) -> None:
        self._say(self, text)

    def _thread(self) -> None:
        task = nuke.ProgressTask(f"rotomem: {self.name}")
        try:
            self._work(task, lambda text: nuke.executeInMainThread(self._say, args=(self, text)))
        finally:
            del task  # which closes its window

    def _work(self, task: nuke.ProgressTask | None, say: Callable[[str], None]) -> None:
        try:
            say("waits for the engine")
            while not _lock.acquire(timeout=_LOOK_S):
                if self._stopped(task):
                    break
            else:
                try:
                    running = engine(self._preference)
                    for one in self.work:
                        if not self._one(running, one, task, say):
                            break
                finally:
                    _lock.release()
        except (EngineError, HostProblem) as error:
            self.problem = str(error)
        except Exception as error:  # nothing may leave the node at work for ever
            self.problem = f"unexpected {type(error).__name__}: {error}"
        if task is None:
            self._end(self)
        else:
            nuke.executeInMainThread(self._end, args=(self,))

    def _stopped(self, task: nuke.ProgressTask | None) -> bool:
        if task is not None and task.isCancelled():
            self.cancelled.set()
        return self.cancelled.is_set()

    def _one(self, running: Engine, one: Work, task: nuke.ProgressTask | None, say: Callable[[str], None]) -> bool:
        """One view to its end; whether to go on."""
        if self._stopped(task):
            return False
        job = running.submit("track", **one.fields)
        said, asked = "", False
        while not job.ended:
            running.poll()
            if self._stopped(task) and not asked:
                running.cancel(job)
                asked = True
            text = _line(job, one.view)
            if text != said:
                said = text
                say(text)
                if task is not None:
                    task.setMessage(text)
                    last = job.last or {}
                    share = last.get("done", 0) / max(last.get("total", 1), 1)
                    task.setProgress(int(100 * (len(self.reports) + share) / len(self.work)))
            time.sleep(_LOOK_S)
        report = (job.result or {}).get("report")
        if job.state == "done":
            self.reports.append((one.view, report))
        elif job.state == "error":
            self.problem = job.message
        else:
            self.cancelled.set()
        return job.state == "done"


def _line(job: Job, view: str) -> str:
    where = f"{view}: " if view else ""
    if job.last is None:
        return where + {"queued": "queued", "running": "looks at plate and keys"}.get(job.state, job.state)
    fps = job.last.get("fps") or 0
    return f"{where}{job.message}" + (f", {fps:.1f} frames a second" if fps else "")
