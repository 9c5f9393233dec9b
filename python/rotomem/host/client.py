"""The rotomem engine seen from a host: one file, standard library only, Python 3.9 syntax; copy it into a plug-in.

The engine is a process of its own (`rotomem worker`). Host and worker exchange JSON objects, one a line, ASCII, over
stdin and stdout: paths and numbers, never pixels. What the worker's libraries print goes to stderr.

The host says                                                  and the worker answers
  (nothing, the worker just started)                             hello    protocol, version, pid, models
  {"do": "look", "id", "plate", "options"}                       done     plate: what was understood of it
  {"do": "load", "id", "options"}                                done     model: name and device; it is warm now
  {"do": "track", "id", "plate", "masks", "out", "options"}      queued   ahead: jobs before this one
                                                                 started  report: frames, objects, outputs, notes
                                                                 progress frame, done, total, fps, files
                                                                 done     report: as `rotomem track --json` has it
  {"do": "export", "id", "plate", "mattes", "kind", "out"}       done     path: what loads both in a host
  {"do": "splines", "id", "mattes", "out", "options", "shift"}   progress frame, done, total; then
                                                                 done     path, objects: name, points, overlap
  {"do": "cancel", "id"}                                         cancelled   report; files are whole
  {"do": "quit"}                                                 (ends, the running job cancelled)
  anything else, or a job that fails                             error    message, remedy, kind, exit_code, context

Every answer is {"event": ..., "id": ...}; the id is the job's, null where a line belongs to no job. `masks` are
texts as `--mask` takes them, `options` the fields of rotomem's TrackOptions; `only`, where it is given, is the range
of frames to do now, of those that `options` ask for. `kind` is one of `rotomem export` ("nk", "comp", ...), `origin`,
where it is given with "comp" or "setting", the frame on disk at time 0 of Fusion's composition. Of "splines" the
ending of `out` says which, as for `rotomem splines`, `options` are the fields of TraceOptions, and frames are counted
`shift` later than the files'. Jobs run one at a time in the order given; the last model stays loaded. The worker ends
when its stdin closes or its parent is gone.

Hosts that cannot hold a pipe use a folder: write request.json (one of the objects above; write it under another
name and rename it, so that it is whole), start `rotomem worker --job FOLDER`, read events.jsonl as it grows, and
create a file `cancel` to cancel. With "host_pid" in the request the job ends when that process is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

PROTOCOL = 1
LONGEST_LINE = 1 << 20  # bytes
CHOSEN = "the preferences"
_STDERR_KEPT, _LONGEST_SAID = 200, 4096  # lines, bytes
_UNWANTED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "LD_LIBRARY_PATH", "LD_PRELOAD")
_ENDS = ("done", "cancelled", "error")

Event = dict[str, Any]


class EngineError(Exception):
    """The engine is missing, of another version, or gone. The text is what a panel shows: cause, then what to do."""


def find_engine(preference: str = "", chosen: str = CHOSEN) -> list[str]:
    """The command that starts rotomem: `[python, "-I", "-m", "rotomem"]` or `[rotomem]`.

    preference   what the user chose: a Python that has rotomem, a `rotomem` command, or an environment's folder;
                 "" looks at $ROTOMEM_PYTHON, then for `rotomem` on the PATH
    chosen       where the user chooses it in this host, as errors name it

    Never the host's own interpreter: torch inside a host breaks the host. Raises EngineError saying where it looked.
    """
    for path, told in ((preference, chosen), (os.environ.get("ROTOMEM_PYTHON", ""), "ROTOMEM_PYTHON")):
        if path:
            return _command(os.path.expanduser(path), told)
    found = shutil.which("rotomem")
    if found:
        return [found]
    raise EngineError(
        f"rotomem was not found: no engine is set in {chosen}, ROTOMEM_PYTHON is not set and there is no `rotomem` "
        f"on the PATH. Install it into a Python 3.11 of its own (pip install .) and choose that Python in {chosen}."
    )


def _command(path: str, told: str) -> list[str]:
    if os.path.isdir(path):
        inside = (
            os.path.join(path, "Scripts", "python.exe") if os.name == "nt" else os.path.join(path, "bin", "python")
        )
        if not os.path.isfile(inside):
            raise EngineError(
                f"{told} names the folder {path}, which holds no Python ({inside}). Choose the environment "
                "rotomem is installed in."
            )
        path = inside
    resolved = path if os.path.dirname(path) else shutil.which(path) or path
    if not os.path.isfile(resolved) or not os.access(resolved, os.X_OK):
        raise EngineError(
            f"{told} names {path}, which is no program. Choose a Python that has rotomem, or the rotomem command."
        )
    if os.path.splitext(os.path.basename(resolved))[0].lower() == "rotomem":
        return [resolved]
    if _is_host_python(resolved):
        raise EngineError(
            f"{told} names {path}, the Python that runs this host. rotomem must have a Python of its own: make an "
            "environment, install rotomem there, choose it."
        )
    return [resolved, "-I", "-m", "rotomem"]


def _is_host_python(path: str) -> bool:
    def home(python: str) -> tuple[str, bool]:
        folder = os.path.dirname(os.path.dirname(os.path.abspath(python)))
        return folder, os.path.isfile(os.path.join(folder, "pyvenv.cfg"))

    if not sys.executable:
        return False
    if os.path.normcase(os.path.abspath(path)) == os.path.normcase(os.path.abspath(sys.executable)):
        return True
    mine, theirs = home(sys.executable), home(path)
    # A virtual environment's Python is a link to another one's, yet another place for packages.
    if mine[1] or theirs[1]:
        return os.path.realpath(mine[0]) == os.path.realpath(theirs[0])
    return os.path.realpath(path) == os.path.realpath(sys.executable)


def clean_environment() -> dict[str, str]:
    """The host's environment without what would make another Python load the host's libraries."""
    return {k: v for k, v in os.environ.items() if k not in _UNWANTED}


class Job:
    """One piece of work. `events` come in order; `state` is "queued", "running", "done", "cancelled" or "error".

    last     the latest progress event, or None
    result   the event that ended it, or None
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.state = "queued"
        self.last: Event | None = None
        self.result: Event | None = None

    @property
    def ended(self) -> bool:
        return self.result is not None

    @property
    def message(self) -> str:
        """A line for a panel."""
        if self.state == "error" and self.result is not None:
            told, remedy = self.result.get("context") or {}, self.result.get("remedy")
            facts = f" [{' '.join(f'{k}={v}' for k, v in told.items())}]" if told else ""
            return f"{self.result.get('message', 'failed')}{facts}" + (f"; {remedy}" if remedy else "")
        if self.last is not None:
            return f"frame {self.last.get('frame')} ({self.last.get('done')}/{self.last.get('total')})"
        return self.state

    def _take(self, event: Event) -> None:
        kind = event.get("event")
        if kind == "started":
            self.state = "running"
        elif kind == "progress":
            self.state, self.last = "running", event
        elif kind in _ENDS:
            self.state, self.result = str(kind), event


class Engine:
    """A running worker. Nothing here blocks but `start`, `wait` and `close`; call `poll` from the host's timer.

    command   from `find_engine`
    chosen    as there
    version   the worker's, after `start`

    All methods are called from one thread. Raises EngineError where the worker cannot be started, speaks another
    protocol, or has ended.
    """

    def __init__(self, command: Sequence[str] | None = None, *, start_s: float = 60.0, chosen: str = CHOSEN) -> None:
        self.command = list(command) if command is not None else find_engine("", chosen)
        self.version = ""
        self.models: list[str] = []
        self.jobs: dict[str, Job] = {}
        self._start_s, self._chosen = start_s, chosen
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._said: deque[str] = deque(maxlen=_STDERR_KEPT)

    @property
    def alive(self) -> bool:
        """Whether the worker runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The last lines the worker wrote to stderr."""
        return "\n".join(self._said)

    def start(self) -> Engine:
        """Start the worker and wait for its hello."""
        try:
            self._process = subprocess.Popen(
                [*self.command, "worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=clean_environment(),
                close_fds=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise EngineError(
                f"rotomem cannot be started: {error.strerror or error} ({self.command[0]}). Check the engine's path "
                f"in {self._chosen}."
            ) from error
        for target in (self._read_events, self._read_stderr):
            threading.Thread(target=target, name="rotomem-client", daemon=True).start()
        hello = self._first_event()
        if hello.get("protocol") != PROTOCOL:
            theirs, version = hello.get("protocol"), hello.get("version", "?")
            self.close()
            older = "the plug-in" if isinstance(theirs, int) and theirs > PROTOCOL else "rotomem"
            told = f"the engine (rotomem {version}) speaks protocol {theirs}, this plug-in speaks {PROTOCOL}"
            raise EngineError(f"{told}. Update {older}.")
        self.version = str(hello.get("version", ""))
        self.models = [str(m) for m in hello.get("models", [])]
        return self

    def submit(self, do: str, **fields: Any) -> Job:
        """Give the worker a job: "track", "look" or "load", with its fields."""
        self._count += 1
        job = Job(f"{do}-{os.getpid()}-{self._count}")
        self._send(dict(fields, do=do, id=job.id))
        self.jobs[job.id] = job
        return job

    def cancel(self, job: Job) -> None:
        """Ask to stop; the job ends as "cancelled" when the frame begun is whole, or "done" if it was faster.

        Of an engine that is gone meanwhile the next `poll` tells.
        """
        if job.ended:
            return
        with contextlib.suppress(EngineError):
            self._send({"do": "cancel", "id": job.id})

    def poll(self) -> list[Event]:
        """What the worker said since; jobs are brought up to date. Does not block.

        A worker that is gone ends all its jobs with an error that tells its last words.
        """
        events: list[Event] = []
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return events
            if event is None:
                events.extend(self._bury())
                continue
            job = self.jobs.get(str(event.get("id")))
            if job is not None and not job.ended:
                job._take(event)
            events.append(event)

    def wait(self, job: Job, timeout_s: float | None = None, every_s: float = 0.02) -> Job:
        """Poll until the job has ended; for scripts without an interface. Raises EngineError after `timeout_s`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not job.ended:
            self.poll()
            if job.ended:
                break
            if until is not None and time.monotonic() > until:
                raise EngineError(f"the engine has not ended {job.id} within {timeout_s:.0f} s")
            time.sleep(every_s)
        return job

    def close(self, wait_s: float = 2.0) -> None:
        """End the worker; a running job is cancelled, its files are whole. May be called twice."""
        process = self._process
        if process is None:
            return
        try:
            if process.stdin is not None:
                process.stdin.close()
        except OSError:
            pass
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Engine:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # The pipes ----------------------------------------------------------------------------------------------

    def _send(self, message: Event) -> None:
        # ASCII, so that a path that is no text arrives as it is.
        line = json.dumps(message).encode("ascii") + b"\n"
        if len(line) > LONGEST_LINE:
            raise EngineError(
                f"the request is {len(line)} bytes long, the engine takes {LONGEST_LINE}. Give fewer masks at a time."
            )
        if not self.alive:
            raise EngineError(self._last_words())
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise EngineError(self._last_words()) from error

    def _first_event(self) -> Event:
        try:
            event = self._events.get(timeout=self._start_s)
        except queue.Empty:
            self.close(0)
            raise EngineError(f"rotomem did not answer within {self._start_s:.0f} s. {self._tail()}") from None
        if event is None or event.get("event") != "hello":
            self.close(0)
            raise EngineError(f"{' '.join(self.command)} is not a rotomem that can work for a host. {self._tail()}")
        return event

    def _read_events(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        try:
            for line in self._process.stdout:
                try:
                    event = json.loads(line.decode("utf-8", "replace"))
                except ValueError:
                    event = None
                if isinstance(event, dict):
                    self._events.put(event)
                else:
                    self._said.append(line.decode("utf-8", "replace").rstrip()[:_LONGEST_SAID])
        except (OSError, ValueError):
            pass
        self._events.put(None)

    def _read_stderr(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        try:
            while line := self._process.stderr.readline(_LONGEST_SAID):
                self._said.append(line.decode("utf-8", "replace").rstrip())
        except (OSError, ValueError):
            pass

    def _bury(self) -> list[Event]:
        """The worker's end as an event for every job that it leaves behind."""
        left = []
        for job in self.jobs.values():
            if not job.ended:
                event: Event = {"event": "error", "id": job.id, "kind": "HostError", "message": self._last_words()}
                job._take(event)
                left.append(event)
        return left

    def _last_words(self) -> str:
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.5)
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        return f"the engine has ended{how}. Mattes written so far are whole; start again to go on. {self._tail()}"

    def _tail(self) -> str:
        time.sleep(0.05)  # its last line may still be on the way
        said = [line for line in self._said if line.strip()]
        return "It said: " + said[-1] if said else "It said nothing."
