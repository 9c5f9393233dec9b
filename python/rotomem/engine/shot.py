"""A plate and its key masks become a matte for every frame: the whole job, stage beside stage.

    read + colour + shrink  ->  network (the caller's thread)  ->  enlarge + write
        two threads, ahead                                          one thread, behind

Only a handful of frames exist at any time, so memory does not depend on the length of the shot. From the first key
the shot runs forward to its end; what lies before the first key is done by a second pass that runs backward from it.
A later key is given to the session on its frame, for the objects it speaks for; before its first key, and from a key
that shows it empty to the next one that does not, an object is absent. What the artist drew is written as drawn.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import rotomem
from rotomem.engine.options import TrackOptions
from rotomem.engine.pipeline import Clock, WriteBehind, read_ahead
from rotomem.engine.report import Progress, Report, memory_bytes, peak_memory_bytes
from rotomem.engine.session import Session
from rotomem.engine.sight import Sight
from rotomem.errors import EXIT_INTERRUPTED, EXIT_OK, OutputError, UsageError
from rotomem.io.atomic import cannot_write
from rotomem.io.colour import TamedPixels
from rotomem.io.masks import Masks, load_masks
from rotomem.io.mattes import MatteWriter
from rotomem.io.plate import Plate
from rotomem.io.sequence import compact_frames
from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.ops import backend
from rotomem.types import KeyMask, ObjectId, PlateFrame

_READ_THREADS = 2
_READ_AHEAD = 3
_WRITE_DEPTH = 2
_CERTAIN = 1 / 1024  # a quarter of an 8-bit step


class Cancel(Protocol):
    """What `track` asks whether to stop; a threading.Event is one."""

    def is_set(self) -> bool: ...


def track(
    plate: str | Path,
    masks: Masks,
    out: str | Path,
    *,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
    **options: Any,
) -> Report:
    """Write a matte for every frame of a plate, from key masks on some of them.

    plate      any spelling `open_plate` takes: `sh010.%04d.exr`, `####`, a folder, a movie
    masks      `["1001=key.png", "hero@1001=hero.exr:A", ...]`, one such text, `{1001: "key.png"}`, MaskSpecs, Keys.
               An object whose mask is empty on a frame is absent from there on, to its next key that shows it
    out        a folder, a pattern such as `mattes/hero.%04d.exr`, or `mattes/hero.mov`
    dry_run    look at everything, write nothing; the report's `frames` say what would be kept and what is left
    progress   called in this thread after every frame
    cancel     asked before every frame; where it is set the frames begun are finished and the report says
               "interrupted". The run can be resumed.
    options    fields of TrackOptions

    Raises any RotomemError; frames written before it are whole, and the error's `report` attribute tells them.
    Memory: independent of the number of frames; about 6 frames of the plate.
    """
    try:
        settings = _options(options)
    except UsageError as error:
        Report(version=rotomem.__version__, plate=str(plate), out=str(out)).attach(error)
        raise
    with ShotRun(plate, masks, out, settings) as run:
        return run.dry_run() if dry_run else run.run(progress=progress, cancel=cancel)


def _options(given: Mapping[str, Any]) -> TrackOptions:
    try:
        return TrackOptions(**given)
    except TypeError as error:
        raise UsageError(
            f"track() {str(error).partition(') ')[2] or error}", remedy="options are the fields of TrackOptions"
        ) from None


@dataclass(frozen=True)
class _Step:
    """One frame of a pass. `write` is False where the matte exists already and only the memory wants the frame."""

    frame: int
    key: KeyMask | None
    write: bool
    last: bool


@dataclass(frozen=True)
class _Prepared:
    """A step with what the network wants to see, [h, w, 3]; None where there is nothing to see."""

    step: _Step
    plate: PlateFrame
    picture: Tensor | None


@dataclass(frozen=True)
class _Segmented:
    """A frame on its way to disk: probabilities [O+1, h, w], background first, then `objects`.

    absent   objects that the artist declared absent here, whatever the network saw
    keys     key frames it was made from
    """

    step: _Step
    plate: PlateFrame
    probabilities: NDArray[np.float32] | None
    objects: tuple[ObjectId, ...]
    absent: frozenset[ObjectId]
    keys: str


class ShotRun:
    """A run that has looked at everything and written nothing yet; `report` says what it will do.

    A context manager. `run` does the work, once. Errors of looking are raised by the constructor.
    """

    def __init__(self, plate: str | Path, masks: Masks, out: str | Path, options: TrackOptions) -> None:
        self.options = options
        self.report = Report(version=rotomem.__version__, plate=str(plate), out=str(out))
        self._clock = Clock()
        self._tamed: dict[int, TamedPixels] = {}
        self._tamed_lock = threading.Lock()
        self._written: deque[int] = deque()
        self._done: set[int] = set()
        self._kept: frozenset[int] = frozenset()
        self._stepped = 0
        self._closed = False
        self._start = time.perf_counter()
        self._progress: Callable[[Progress], None] | None = None
        self._cancel: Cancel | None = None
        self._stack = ExitStack()
        try:
            self._look(plate, masks, out)
        except BaseException as error:
            self._stack.close()
            self.report.attach(error)
            raise

    def __enter__(self) -> ShotRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # Looking --------------------------------------------------------------------------------------

    def _look(self, plate: str | Path, masks: Masks, out: str | Path) -> None:
        options, report = self.options, self.report
        for what, path in (("plate", plate), ("out", out)):
            if not isinstance(path, (str, os.PathLike)):
                raise UsageError(f"{what} is {path!r} ({type(path).__name__})", remedy="give a path")
        self.plate = self._stack.enter_context(options.open_plate(plate))
        info = self.info = self.plate.info
        report.frames_asked = len(self.plate.frames)
        report.frames = {"asked": compact_frames(self.plate.frames), "missing": compact_frames(info.missing)}
        report.canvas, report.pixel_aspect = [info.canvas.width, info.canvas.height], info.pixel_aspect
        report.notes.extend(info.notes)

        self._sight = self._stack.enter_context(Sight(self.plate, options))
        self.colour, self.geometry = self._sight.colour, self._sight.geometry
        report.colour = self.colour.sentence

        self.keys = load_masks(masks, self.plate)
        self._names = dict(self.keys.objects.names)
        report.notes.extend(self.keys.notes)
        report.keys = {
            frame: [self._names[i] for i in key.objects] for frame, key in sorted(self.keys.by_frame.items())
        }

        if isinstance(options.model, VOSModel):
            self.model = options.model
        else:
            self.model = load_model(options.model, device=options.device, dtype=options.dtype)
        parameter = next(self.model.parameters())
        report.model, report.weights = self.model.name, self.model.weights_hash
        report.device, report.dtype = str(parameter.device), self.model.precision
        report.backend = backend.current(parameter.device.type)
        if options.size is not None and options.size < self.model.plan.stride:
            raise UsageError(
                f"size is {options.size}", remedy=f"give {self.model.plan.stride} or more, or the plate's own size"
            )
        h, w = self.geometry.network_size
        report.network_size = [w, h]
        # Settings that contradict each other fail here; what is left to the model is decided.
        self._decided = self._session()

        self.writer = MatteWriter(
            out,
            info=info,
            objects=self._names,
            settings=options.mattes(),
            provenance=self._provenance(),
            protect=[path for key in self.keys.by_frame.values() for path in key.paths],
            replace_foreign=options.overwrite,
        )
        report.notes.extend(self.writer.notes)
        report.objects = {self._names[i]: layer for i, layer in self.writer.layers.items()}
        for frame in sorted({self.plate.frames[0], self.plate.frames[-1]}):
            for kind, paths in self.writer.paths_by_kind(frame).items():
                told = report.outputs if kind == "mattes" else report.also.setdefault(kind, [])
                told.extend(str(path) for path in paths if str(path) not in told)
        report.settings = {**asdict(replace(options, model="")), "model": self.model.name}
        report.settings.update(asdict(self.writer.settings))

        self._sources = self._source_hashes()
        existing = [path for frame in self.plate.frames for path in self._paths(frame) if os.path.exists(path)]
        report.files_existing = len(existing)
        report.status, report.exit_code = "dry run", EXIT_OK
        if existing and not (options.resume or options.overwrite):
            raise UsageError(
                f"{len(set(existing))} of the mattes to write exist already",
                remedy="use --resume to redo only what is missing, damaged or made with other settings, "
                "--overwrite to replace them all, or choose another output",
                path=existing[0],
            )
        self._refuse_outputs()

    def _refuse_outputs(self) -> None:
        """Say before anything is replaced what a later frame's file would be refused for."""
        folders: set[Path] = set()
        for frame in self.plate.frames:
            paths = self._paths(frame)
            for path in paths:
                if path.parent not in folders:
                    folders.add(path.parent)
                    _refuse_unwritable(path)
                if os.path.isdir(path):
                    raise OutputError(
                        "a folder stands where the file should go",
                        remedy="choose another output name, or move the folder away",
                        path=path,
                        frame=frame,
                    )
            if any(map(os.path.exists, paths)):
                self.writer.refuse(frame, self.plate.file(frame))

    def _paths(self, frame: int) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self.writer.paths(frame)))

    def _provenance(self) -> dict[str, str]:
        """What a matte's pixels depend on. A file made otherwise is redone by resume; the device is not in it."""
        options, info = self.options, self.info
        h, w = self.geometry.network_size
        session = {**options.session(), **asdict(self._decided.settings), "depth": self._decided.depth}
        if len(self.model.depths) < 2:
            del session["depth"]
        told = {
            "version": rotomem.__version__,
            "model": self.model.name,
            "weights": self.model.weights_hash,
            "dtype": self.report.dtype,
            # Not as it was spelled: a folder and a pattern may mean the same files, `_source_hashes` knows which.
            "plate": info.stem + Path(info.first_file).suffix,
            "network": f"{w}x{h}" + (f" rim {options.rim}" if options.rim else ""),
            "session": " ".join(f"{k}={v}" for k, v in session.items()),
            "keys": "; ".join(f"{f} {','.join(names)}" for f, names in self.report.keys.items()),
            "keys_hash": self.keys.digest(),
        }
        told.update({k.removeprefix("rotomem/"): v for k, v in self.colour.as_metadata().items()})
        if info.layer:
            told["layer"] = info.layer
        if info.view:
            told["plate_view"] = info.view
        return told

    def _orders(self) -> tuple[list[int], list[int]]:
        """Frames of the forward pass and of the backward one; both begin with the first key."""
        frames, first_key = self.plate.frames, min(self.keys.by_frame)
        return [f for f in frames if f >= first_key], [first_key, *(f for f in reversed(frames) if f < first_key)]

    def _source_hashes(self) -> dict[int, str]:
        """Frame -> hash of the plate files that its matte is made from: its own and those from the key up to it.

        By name, size and time of writing, so that a plate may move house. A frame that was rendered again changes
        itself and all that follow; a longer shot leaves what is there as it was. Of a movie one hash for all.
        """
        forward, backward = self._orders()
        hashes = {**_chain(self.plate, backward), **_chain(self.plate, forward)}
        if self._movie:
            both = hashes[forward[-1]] + hashes[backward[-1]]
            return dict.fromkeys(hashes, hashlib.blake2b(both.encode(), digest_size=16).hexdigest())
        return hashes

    # Working --------------------------------------------------------------------------------------

    def dry_run(self) -> Report:
        """Look at what exists as `run` would, and tell what it would keep and what it would write."""
        self._kept = self._current() if self.options.resume else frozenset()
        self._tell()
        return self.report

    def run(self, *, progress: Callable[[Progress], None] | None = None, cancel: Cancel | None = None) -> Report:
        """Do it. Raises what `track` raises, with the report as the error's `report`."""
        self._progress, self._cancel = progress, cancel
        self._start = time.perf_counter()
        if self.report.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        try:
            kept = self._kept = self._current() if self.options.resume else frozenset()
            complete = self._passes(kept) if len(kept) < len(self.plate.frames) else True
            if complete:
                self.writer.close()
                self._closed = True
            else:
                self.writer.abandon()
        except BaseException as error:
            self.writer.abandon()
            self._tell()
            self.report.attach(error)
            raise
        self._tell()
        if not complete:
            self.report.status, self.report.exit_code = "interrupted", EXIT_INTERRUPTED
        else:
            self.report.status = "done" if self._done else "nothing to do"
            self.report.exit_code = EXIT_OK
        return self.report

    @property
    def _movie(self) -> bool:
        return self.writer.in_order

    def _current(self) -> frozenset[int]:
        """Frames whose mattes are whole and made with these settings; of a movie all or none."""
        frames = self.plate.frames
        sources = [self._sources[f] for f in frames]
        if self._movie:
            return frozenset(frames if all(map(self.writer.is_current, frames, sources)) else ())
        with ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="rotomem-check") as pool:
            current = pool.map(self.writer.is_current, frames, sources)
            return frozenset(f for f, whole in zip(frames, current, strict=True) if whole)

    def _passes(self, kept: frozenset[int]) -> bool:
        """Both passes; False where the run was cancelled."""
        keys = self.keys.by_frame
        first_key = min(keys)
        tail, head = self._orders()
        with tempfile.TemporaryDirectory(prefix="rotomem-") as folder:
            # A movie is written in order, so what the backward pass makes waits on disk, at network size.
            spool = Path(folder) if self._movie and len(head) > 1 else None
            steps = self._steps(head, {first_key: keys[first_key]}, kept | {first_key})
            if not self._pass(steps, str(first_key), spool):
                return False
            if spool is not None and not self._from_spool(sorted(set(head) - {first_key} - kept), spool):
                return False
        return self._pass(self._steps(tail, keys, kept), "", None)

    def _session(self) -> Session:
        return Session(self.model, size=None, **self.options.session())

    @staticmethod
    def _steps(frames: Sequence[int], keys: Mapping[int, KeyMask], kept: frozenset[int]) -> list[_Step]:
        """The frames of a pass up to the last one that wants writing; none where none does."""
        wanted = [i for i, f in enumerate(frames) if f not in kept]
        if not wanted:
            return []
        end = wanted[-1]
        return [_Step(f, keys.get(f), f not in kept, i == end) for i, f in enumerate(frames[: end + 1])]

    def _pass(self, steps: list[_Step], keys: str, spool: Path | None) -> bool:
        """One direction. `keys` are the key frames its mattes are made from; "" is all those up to each frame."""
        if not steps:
            return True
        session = self._session()
        behind = WriteBehind(self._deliver, depth=_WRITE_DEPTH)
        complete = True
        absent: frozenset[ObjectId] = frozenset()
        try:
            with closing(self._read(steps)) as ready:
                for prepared in ready:
                    if self._cancelled():
                        complete = False
                        break
                    step = prepared.step
                    if step.key is not None:
                        absent = (absent - set(step.key.objects)) | _empty(step.key)
                    segmented = self._segment(session, prepared, absent, keys)
                    if step.write and spool is None:
                        behind.put(segmented)
                    elif step.write and segmented.probabilities is not None:
                        np.save(_spooled(spool, step.frame), segmented.probabilities)
                    self._advance(step)
                    del prepared, segmented
        finally:
            # Frames that were begun are finished whatever happened; a writer's own error comes out here.
            try:
                behind.finish()
            finally:
                self._drain()
                reading = session.timings.get("memory_read", 0.0)
                self._clock.add("memory_read", reading)
                self._clock.add("network", -reading)
        return complete

    def _segment(self, session: Session, prepared: _Prepared, absent: frozenset[ObjectId], keys: str) -> _Segmented:
        step, probabilities = prepared.step, None
        if prepared.picture is not None:
            with self._clock.busy("network"):
                if step.key is None:
                    probabilities = session.step(prepared.picture, last=step.last)
                else:
                    masks = self.geometry.masks(torch.from_numpy(step.key.alpha))
                    probabilities = session.step(prepared.picture, masks, objects=step.key.objects, last=step.last)
        used = keys or ",".join(str(f) for f in sorted(self.keys.by_frame) if f <= step.frame)
        return _Segmented(step, prepared.plate, probabilities, session.objects, absent, used)

    def _from_spool(self, frames: Sequence[int], spool: Path) -> bool:
        """Write what the backward pass left on disk, in ascending order."""
        first_key = min(self.keys.by_frame)
        key = self.keys.by_frame[first_key]
        for frame in frames:
            if self._cancelled():
                return False
            path = _spooled(spool, frame)
            probabilities = np.load(path) if path.exists() else None
            step = _Step(frame, None, True, False)
            plate = self.plate.read(frame)
            self._deliver(_Segmented(step, plate, probabilities, key.objects, _empty(key), str(first_key)))
            self._drain()
        return True

    # Stages ---------------------------------------------------------------------------------------

    def _read(self, steps: Sequence[_Step]) -> Generator[_Prepared, None, None]:
        # One decoder reads a movie, and only in order does it not seek.
        threads = 1 if self.info.kind == "movie" else _READ_THREADS
        return read_ahead(steps, self._prepare, ahead=_READ_AHEAD, threads=threads)

    def _prepare(self, step: _Step) -> _Prepared:
        with self._clock.busy("read"):
            frame = self.plate.read(step.frame)
        picture = None
        # A frame that is not there teaches the memory nothing, unless the artist drew on it.
        if frame.source_frame is not None or step.key is not None:
            with self._clock.busy("colour"):
                picture = self._picture(frame)
        if self.options.rgb == "none":
            frame = _without_pixels(frame)
        return _Prepared(step, frame, picture)

    def _picture(self, frame: PlateFrame) -> Tensor:
        """What the network sees of a frame; what had to be tamed is noted."""
        picture, tamed = self._sight.picture(frame)
        if tamed:
            with self._tamed_lock:
                # By frame: the first key is prepared by both passes.
                self._tamed[frame.frame] = tamed
        return picture

    def _deliver(self, item: _Segmented) -> None:
        """Enlarge and write one frame; in the writer's thread."""
        key = item.step.key
        settled = item.absent.union(key.objects if key is not None else ())
        alpha: dict[ObjectId, NDArray[np.float32]] = {}
        with self._clock.busy("upsample"):
            if item.probabilities is not None:
                rows = [i for i, number in enumerate(item.objects) if number not in settled]
                if rows:
                    chosen = torch.from_numpy(_solid(item.probabilities[[1 + i for i in rows]]))
                    restored = self.geometry.restore(chosen).numpy()
                    alpha.update((item.objects[i], restored[k]) for k, i in enumerate(rows))
            if key is not None:
                alpha.update(zip(key.objects, key.alpha, strict=True))
        with self._clock.busy("write"):
            self.writer.write(item.plate, alpha, keys=item.keys, source=self._sources[item.step.frame])
        self._written.append(item.step.frame)

    # Telling --------------------------------------------------------------------------------------

    def _cancelled(self) -> bool:
        return self._cancel is not None and self._cancel.is_set()

    def _advance(self, step: _Step) -> None:
        self._stepped += 1
        self._drain()
        if not step.write:
            self._say(step.frame, "remember")

    def _drain(self) -> None:
        """Tell of the frames written since; in the caller's thread, so that callbacks need no locks."""
        while self._written:
            frame = self._written.popleft()
            self._done.add(frame)
            self._say(frame, "track")

    def _say(self, frame: int, doing: str) -> None:
        if self._progress is not None:
            elapsed = time.perf_counter() - self._start
            done = len(self._done) + len(self._kept)
            fps = self._stepped / elapsed if elapsed > 0 else 0.0
            self._progress(Progress(frame, done, len(self.plate.frames), doing, fps, memory_bytes()))

    def _tell(self) -> None:
        """Bring the report up to date; also after an error."""
        report = self.report
        kept = self._kept
        # A movie appears when it is complete or not at all.
        done = set() if self._movie and not self._closed else self._done
        report.frames_written, report.frames_kept = len(done), len(kept)
        report.frames.update(
            written=compact_frames(done),
            kept=compact_frames(kept),
            left=compact_frames(set(self.plate.frames) - done - kept),
        )
        seconds = self._clock.seconds()
        seconds["wall"] = time.perf_counter() - self._start
        report.seconds = {k: round(v, 4) for k, v in sorted(seconds.items())}
        if self._stepped:
            report.seconds_per_frame = {k: round(v / self._stepped, 4) for k, v in sorted(seconds.items())}
            report.fps = round(self._stepped / seconds["wall"], 3)
        report.peak_memory_bytes = peak_memory_bytes()
        if report.device.startswith("cuda"):
            report.peak_gpu_memory_bytes = torch.cuda.max_memory_allocated()
        report.tell_tamed(self._tamed)


def _empty(key: KeyMask) -> frozenset[ObjectId]:
    """Objects that a key says are absent."""
    return frozenset(i for i, alpha in zip(key.objects, key.alpha, strict=True) if not alpha.any())


def _chain(plate: Plate, frames: Sequence[int]) -> dict[int, str]:
    """Frame -> hash of the files of `frames` up to it."""
    digest = hashlib.blake2b(digest_size=16)
    known: dict[Path | None, str] = {None: "black"}
    hashes = {}
    for frame in frames:
        path = plate.file(frame)
        if path not in known:
            assert path is not None
            try:
                stat = os.stat(path)
                known[path] = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
            except OSError:  # gone since it was found; reading it says so
                known[path] = f"{path.name} gone"
        digest.update(f"{frame} {known[path]}\n".encode())
        hashes[frame] = digest.hexdigest()
    return hashes


def _refuse_unwritable(path: Path) -> None:
    """Raise OutputError where the folder of `path` cannot be made or written."""
    folder = path.parent
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise cannot_write(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise cannot_write(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def _solid(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy in which the last thousandth is certainty: a compositor's blacks are 0 and whites 1."""
    solid = np.where(probabilities < _CERTAIN, np.float32(0), probabilities)
    return np.where(solid > 1 - _CERTAIN, np.float32(1), solid)


def _spooled(folder: Path | None, frame: int) -> Path:
    assert folder is not None
    return folder / f"{frame}.npy"


def _without_pixels(frame: PlateFrame) -> PlateFrame:
    """The frame as a matte needs it: windows and metadata, of the pixels the shape only."""
    return replace(frame, rgb=np.broadcast_to(frame.rgb.dtype.type(0), frame.rgb.shape), alpha=None)
