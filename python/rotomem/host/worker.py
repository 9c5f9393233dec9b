"""The engine process a host talks to: JSON lines in, JSON lines out; `client.py` tells the words.

    stdin -> reader thread -> queue of jobs -> the main thread works -> queue of events -> writer thread -> stdout

File descriptor 1 is taken away from everybody else at once, so nothing a library prints can fall between two events.
Both queues are bounded: a host that floods is told so, a host that does not listen loses progress, never an end.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import rotomem
from rotomem.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, HostError, RotomemError, UsageError
from rotomem.host.client import LONGEST_LINE, PROTOCOL
from rotomem.io.atomic import remove_begun

if TYPE_CHECKING:
    from rotomem.engine.options import TrackOptions
    from rotomem.models.interface import VOSModel

_JOBS_WAITING = 64
_EVENTS_WAITING = 1000
_GARBAGE_TAKEN = 100  # lines in a row that are no request, before the other side is taken for no host
_LAST_FRAME_S = 0.6  # what a frame begun may still take when the host is gone
_LOOK_S = 0.2

Send = Callable[[dict[str, Any]], None]


class Job:
    """A request that waits or runs."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.id = request.get("id")
        self.cancel = threading.Event()


class Worker:
    """Does jobs, one at a time, and tells `send` of them. Keeps the last model.

    send   takes an event; called from the thread that calls `do`
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._model: VOSModel | None = None
        self._model_is: object = None

    def do(self, job: Job) -> int:
        """Do one job to its end; what goes wrong becomes an `error` event. Returns an exit code, as a command's."""
        verbs = {
            "track": self._track,
            "look": self._look,
            "load": self._load,
            "export": self._export,
            "splines": self._splines,
        }
        try:
            verb = verbs.get(job.request.get("do", ""))
            if verb is None:
                raise HostError(
                    f"a request to do {job.request.get('do')!r}",
                    remedy=f"ask for one of {', '.join(verbs)}, cancel, quit",
                )
            if job.cancel.is_set():
                self._send({"event": "cancelled", "id": job.id, "report": None})
                return EXIT_INTERRUPTED
            return verb(job)
        except Exception as error:
            self._send(error_event(error, job.id))
            return error.exit_code if isinstance(error, RotomemError) else EXIT_FAILED

    def _track(self, job: Job) -> int:
        from rotomem.engine.shot import ShotRun
        from rotomem.io.sequence import parse_frames

        plate, out = _text(job.request, "plate"), _text(job.request, "out")
        masks = job.request.get("masks")
        if not (isinstance(masks, list) and all(isinstance(m, str) for m in masks)):
            raise HostError(f"masks are {masks!r}", remedy='give a list of texts such as "hero@1001=hero.exr"')
        only = parse_frames(_text(job.request, "only")) if "only" in job.request else None
        options = self._warm(_options(job.request))
        with ShotRun(plate, masks, out, options) as shot:
            self._send({"event": "started", "id": job.id, "report": asdict(shot.report)})

            def progress(now: Any) -> None:
                said = {"event": "progress", "id": job.id, **asdict(now)}
                if now.doing == "track":
                    said["files"] = [str(path) for path in shot.survey.writer.paths(now.frame)]
                self._send(said)

            report = shot.run(progress=progress, cancel=job.cancel, only=only)
        kind = "cancelled" if report.status == "interrupted" else "done"
        self._send({"event": kind, "id": job.id, "report": asdict(report)})
        return report.exit_code

    def _look(self, job: Job) -> int:
        options = _options(job.request)
        with options.open_plate(_text(job.request, "plate")) as plate:
            info = plate.info
            colour = options.decide_colour(info)
            told = {
                "frames": list(info.frames),
                "missing": list(info.missing),
                "width": info.canvas.width,
                "height": info.canvas.height,
                "pixel_aspect": info.pixel_aspect,
                "fps": None if info.fps is None else float(info.fps),
                "layers": list(info.layers),
                "views": list(info.views),
                "colour": colour.sentence,
                "notes": list(info.notes),
            }
        self._send({"event": "done", "id": job.id, "plate": told})
        return EXIT_OK

    def _load(self, job: Job) -> int:
        model = self._warm(_options(job.request)).model
        parameter = next(model.parameters())  # type: ignore[union-attr]
        told = {"name": model.name, "device": str(parameter.device), "dtype": model.precision}  # type: ignore[union-attr]
        self._send({"event": "done", "id": job.id, "model": told})
        return EXIT_OK

    def _export(self, job: Job) -> int:
        from rotomem.interop.export import exported, write_export

        kind, out = _text(job.request, "kind"), _text(job.request, "out")
        mattes, origin = job.request.get("mattes"), job.request.get("origin")
        if not (isinstance(mattes, list) and all(isinstance(m, str) for m in mattes)):
            raise HostError(f"mattes are {mattes!r}", remedy="give a list of folders")
        if origin is not None and (isinstance(origin, bool) or not isinstance(origin, int)):
            raise HostError(f"the origin is {origin!r}", remedy="give a frame on disk, or none")
        write_export(kind, exported(kind, _text(job.request, "plate"), mattes, origin=origin), Path(out))
        self._send({"event": "done", "id": job.id, "path": out})
        return EXIT_OK

    def _splines(self, job: Job) -> int:
        from rotomem.interop.splines import save_splines, trace_mattes
        from rotomem.splines.files import check_writable
        from rotomem.splines.trace import TraceOptions

        mattes, out = _text(job.request, "mattes"), _text(job.request, "out")
        shift, given = job.request.get("shift", 0), job.request.get("options", {})
        if isinstance(shift, bool) or not isinstance(shift, int):
            raise HostError(f"the shift is {shift!r}", remedy="give a number of frames")
        known = [field.name for field in fields(TraceOptions)]
        if not isinstance(given, dict) or not set(given) <= set(known):
            raise HostError(f"options are {given!r}", remedy=f"give an object with any of {', '.join(known)}")
        check_writable(out)

        def on_frame(done: int, of: int) -> None:
            self._send(
                {"event": "progress", "id": job.id, "doing": "splines", "frame": done, "done": done, "total": of}
            )
            if job.cancel.is_set():
                raise InterruptedError

        try:
            splines, objects = trace_mattes(mattes, options=TraceOptions(**given), on_frame=on_frame)
        except InterruptedError:
            self._send({"event": "cancelled", "id": job.id, "report": None})
            return EXIT_INTERRUPTED
        save_splines(splines.shifted(shift), out)
        told = [{"name": o.name, "points": o.points, "overlap": o.overlap} for o in objects]
        self._send({"event": "done", "id": job.id, "path": out, "objects": told})
        return EXIT_OK

    def _warm(self, options: TrackOptions) -> TrackOptions:
        """The options with their model loaded; the one of the last job where that is the same."""
        from dataclasses import replace

        from rotomem.models.registry import load_model

        name = str(options.model)
        # A file that was written again is another model.
        stamp = os.stat(name).st_mtime_ns if os.path.isfile(name) else None
        wanted = (name, stamp, options.device, options.dtype)
        if self._model is None or wanted != self._model_is:
            self._model = None  # two at a time may not fit a device
            self._model = load_model(name, device=options.device, dtype=options.dtype)
            self._model_is = wanted
        return replace(options, model=self._model)


def error_event(error: BaseException, id: object = None) -> dict[str, Any]:
    """An error as the host is told: message, remedy, kind, exit code, context."""
    if isinstance(error, RotomemError):
        context = {k: str(v) for k, v in error.context.items()}
        message, remedy, code = error.what, error.remedy, error.exit_code
    elif isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        context, code = {}, EXIT_FAILED
        message, remedy = "out of memory", "use a smaller size, fewer objects, or the device cpu"
    else:
        context, code = {}, EXIT_FAILED
        message = f"unexpected {type(error).__name__}: {error}"
        remedy = "run the same with `rotomem track --debug` and report what it shows"
    kind = type(error).__name__
    told = {"event": "error", "id": id, "kind": kind, "message": message, "remedy": remedy, "context": context}
    report = getattr(error, "report", None)
    return {**told, "exit_code": code, "report": None if report is None else asdict(report)}


def hello() -> dict[str, Any]:
    """What a worker says first; quickly, so without asking the registry, which brings torch."""
    weights = Path(rotomem.__file__).parent / "models" / "weights"
    return {
        "event": "hello",
        "id": None,
        "protocol": PROTOCOL,
        "version": rotomem.__version__,
        "pid": os.getpid(),
        "models": sorted(file.stem for file in weights.glob("*.safetensors")),
    }


# Over pipes ---------------------------------------------------------------------------------------------------


def serve() -> int:
    """Work for the host at the other end of stdin and stdout until it says quit or is gone; exit code.

    A host that is gone leaves a worker that is gone within a second: the frame begun is given 0.6 s, then what it
    has written is removed.
    """
    out = _own_stdout()
    said = _Said(out)
    jobs = _Jobs(said.put)
    said.unheard = jobs.leave
    threading.Thread(target=_watch_parent, args=(jobs,), name="rotomem-parent", daemon=True).start()
    said.put(hello())
    threading.Thread(target=jobs.read, args=(sys.stdin.buffer,), name="rotomem-requests", daemon=True).start()
    worker = Worker(said.put)
    importlib.import_module("rotomem.engine.shot")  # while the artist still looks for the button
    while (job := jobs.next()) is not None:
        worker.do(job)
        jobs.ended(job)
    said.finish()
    return EXIT_OK


def _own_stdout() -> IO[bytes]:
    """Stdout for us alone; everybody else who writes to file descriptor 1 writes to stderr from now on."""
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


class _Said:
    """Events on their way to the host, written by a thread of its own, which calls `unheard` when nobody listens."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.unheard: Callable[[], None] = lambda: None
        self._stream = stream
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(_EVENTS_WAITING)
        self._thread = threading.Thread(target=self._write, name="rotomem-events", daemon=True)
        self._thread.start()

    def put(self, event: dict[str, Any]) -> None:
        """Say something; progress is dropped where the host does not listen, everything else waits."""
        if event["event"] == "progress" and self._events.qsize() > _EVENTS_WAITING // 2:
            return
        self._events.put(event)

    def finish(self) -> None:
        """Wait a little until all is said."""
        self._events.put(None)
        self._thread.join(_LAST_FRAME_S)

    def _write(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._stream.write(line_of(event))
                self._stream.flush()
            except (OSError, ValueError):
                self.unheard()
                return


def line_of(event: Mapping[str, Any]) -> bytes:
    """An event as its line."""
    return json.dumps(event, default=str).encode("ascii") + b"\n"


class _Jobs:
    """Requests in, jobs out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: queue.Queue[Job | None] = queue.Queue(_JOBS_WAITING)
        self._known: dict[object, Job] = {}
        self._lock = threading.Lock()
        self._leaving = False

    def next(self) -> Job | None:
        """The next job; None when there will be none."""
        return None if self._leaving else self._waiting.get()

    def ended(self, job: Job) -> None:
        with self._lock:
            self._known.pop(job.id, None)

    def leave(self) -> None:
        """The host is gone: cancel, and be gone soon even where the job does not listen."""
        self._leaving = True
        with self._lock:
            for job in self._known.values():
                job.cancel.set()
        while True:
            try:
                self._waiting.put_nowait(None)
                break
            except queue.Full:
                self._waiting.get_nowait()
        time.sleep(_LAST_FRAME_S)
        remove_begun()
        os._exit(EXIT_OK)

    def read(self, stream: IO[bytes]) -> None:
        """Take requests until the stream ends; the reader's thread."""
        garbage = 0
        for line in bounded_lines(stream):
            trouble = self._take(line)
            garbage = garbage + 1 if trouble else 0
            if trouble:
                self._send(error_event(HostError(trouble, remedy="send one JSON object a line")))
            if garbage >= _GARBAGE_TAKEN:
                self._send(
                    error_event(HostError(f"{garbage} lines in a row are no requests", remedy="start another worker"))
                )
                break
        self.leave()

    def _take(self, line: bytes | None) -> str | None:
        """One request; returns what is wrong with it."""
        if line is None:
            return f"a line of more than {LONGEST_LINE} bytes"
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return f"a line that is not JSON: {line[:80]!r}"
        if not isinstance(request, dict) or not isinstance(request.get("do"), str):
            return f"a line without a request: {line[:80]!r}"
        do, id = request["do"], request.get("id")
        if do == "quit":
            self.leave()
        if not isinstance(id, str) or not id:
            return f"a request to {do} without an id"
        with self._lock:
            known = self._known.get(id)
        if do == "cancel":
            if known is not None:
                known.cancel.set()
            return None
        if known is not None:
            return f"a second request with the id {id}"
        job = Job(request)
        with self._lock:
            ahead = len(self._known)
            self._known[id] = job
        try:
            # Said before it can be worked on, so that no other event of it comes first.
            if ahead < _JOBS_WAITING:
                self._send({"event": "queued", "id": id, "ahead": ahead})
            self._waiting.put_nowait(job)
        except queue.Full:
            self.ended(job)
            self._send(error_event(HostError(f"{ahead} jobs wait already", remedy="wait until some have ended"), id))
        return None


def bounded_lines(stream: IO[bytes], longest: int = LONGEST_LINE) -> Iterable[bytes | None]:
    """The lines of a stream, blank ones left out; None for one of more than `longest` bytes, which is thrown away.

    Never holds more than `longest` bytes.
    """
    while line := stream.readline(longest + 1):
        if len(line) > longest and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(longest + 1)
            yield None
        elif line.strip():
            yield line


def _watch_parent(jobs: _Jobs) -> None:
    """Leave when the parent process is gone: another child of it may hold the pipe open."""
    if os.name == "nt":  # there the pipe's end is all there is
        return
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    jobs.leave()


# Through a folder ---------------------------------------------------------------------------------------------


def serve_folder(folder: Path) -> int:
    """Do the one job that FOLDER/request.json asks for, telling FOLDER/events.jsonl; exit code.

    A file FOLDER/cancel cancels. With "host_pid" in the request the job is also cancelled when that process is gone.

    Raises HostError where there is no request, or where another worker has begun it.
    """
    path = folder / "request.json"
    try:
        request = json.loads(path.read_bytes())
    except OSError as error:
        raise HostError(
            f"the request cannot be read: {error.strerror}",
            remedy="write request.json into the folder first",
            path=path,
        ) from None
    except ValueError as error:
        raise HostError(
            f"the request is not JSON: {error}",
            remedy="write it under another name and rename it, so that it appears whole",
            path=path,
        ) from None
    if not isinstance(request, dict):
        raise HostError("the request is no JSON object", remedy='write {"do": "track", ...}', path=path)
    try:
        events = (folder / "events.jsonl").open("xb", buffering=0)
    except FileExistsError:
        raise HostError("this job was begun already", remedy="make a new folder for every job", path=folder) from None
    except OSError as error:
        raise HostError(
            f"the events cannot be written: {error.strerror}",
            remedy="choose a folder that can be written",
            path=folder,
        ) from None
    with events:
        lock = threading.Lock()

        def send(event: dict[str, Any]) -> None:
            with lock:
                events.write(line_of(event))

        job = Job({"id": folder.name, **request})
        over = threading.Event()
        threading.Thread(target=_watch_folder, args=(folder, job, over), name="rotomem-cancel", daemon=True).start()
        send(hello())
        try:
            return Worker(send).do(job)
        finally:
            over.set()


def _watch_folder(folder: Path, job: Job, over: threading.Event) -> None:
    host = job.request.get("host_pid")
    while not over.wait(_LOOK_S):
        if (folder / "cancel").exists() or (isinstance(host, int) and not _exists(host)):
            job.cancel.set()
            return


def _exists(pid: int) -> bool:
    if os.name == "nt":
        import ctypes

        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
        handle = kernel.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        if not handle:
            return False
        gone = kernel.WaitForSingleObject(handle, 0) == 0
        kernel.CloseHandle(handle)
        return not gone
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# Requests -----------------------------------------------------------------------------------------------------


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise HostError(f"{name} is {value!r}", remedy="give a path")
    return value


def _options(request: Mapping[str, Any]) -> TrackOptions:
    from rotomem.engine.options import TrackOptions

    given = request.get("options", {})
    if not isinstance(given, dict):
        raise HostError(f"options are {given!r}", remedy="give an object with fields of TrackOptions")
    known = {field.name for field in fields(TrackOptions)}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"unknown option {', '.join(unknown)}", remedy=f"options are {', '.join(sorted(known))}")
    return TrackOptions(**given)
