"""Where what the network said waits until it is delivered, and from where it is taken when nothing has changed.

One segment is one file, named by a digest of everything its mattes depend on, and of nothing else. It is a zip
archive: `inputs.json`, which says by name what went into the digest, and an entry for every frame. While it is being
made it has a temporary name; a crash leaves nothing that looks finished. Equal inputs give equal bytes: no date is in
it but the format's first.

A probability is kept as a whole number of 65535ths, each object in the box outside of which it is nowhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.blend import Mattes
from rotomem.errors import InputError, OutputError
from rotomem.io.atomic import cannot_write, part_path, remove_leftovers
from rotomem.types import ObjectId, Window

_LAYOUT = 1  # raised when the same inputs would give other files
_SUFFIX = ".segment"
_INPUTS = "inputs.json"
_OPEN = 16
_CERTAIN = 1 / 1024  # a quarter of an 8-bit step


@dataclass(frozen=True)
class StoredFrame:
    """What the network said of one frame.

    mattes    object -> probabilities [h, w] float32 0..1 at the network's raster, without the rim; an object that
              is not in it is absent
    window    what the raster covers of the plate's canvas
    size      (h, w) of the raster
    signals   object -> name -> what quality control wants to know
    """

    frame: int
    mattes: Mattes
    window: Window
    size: tuple[int, int]
    signals: Mapping[ObjectId, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        frame: int,
        mattes: Mattes,
        window: Window,
        size: tuple[int, int],
        signals: Mapping[ObjectId, Mapping[str, float]] | None = None,
    ) -> StoredFrame:
        """With what a store would give back: in steps of 1/65535, the last thousandth being certainty, so that a
        compositor's blacks are 0 and whites 1. Objects that are nowhere are left out.
        """
        kept = {number: _solid(matte) for number, matte in mattes.items()}
        return cls(frame, {n: m for n, m in kept.items() if m.any()}, window, size, signals or {})


def _solid(matte: NDArray[np.float32]) -> NDArray[np.float32]:
    steps = np.rint(matte * np.float32(65535))
    steps[matte < _CERTAIN] = 0
    steps[matte > 1 - _CERTAIN] = 65535
    return (steps / np.float32(65535)).astype(np.float32, copy=False)


def digest(inputs: Mapping[str, str]) -> str:
    """The name of a segment with these inputs."""
    told = json.dumps({"layout": _LAYOUT, "inputs": dict(inputs)}, sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()[:32]


class _Archives:
    """Files open for reading, the latest few: a run may hold thousands of segments, a process not as many files."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, zipfile.ZipFile] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, path: Path) -> Iterator[zipfile.ZipFile]:
        """The archive, for one thread at a time; opened where it is not."""
        with self._lock:
            archive = self._open.pop(path, None) or zipfile.ZipFile(path)
            self._open[path] = archive
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].close()
            yield archive

    def close(self, path: Path) -> None:
        with self._lock:
            if (archive := self._open.pop(path, None)) is not None:
                archive.close()


class StoredSegment:
    """A finished segment in a store; frames are read when they are asked for, from any thread.

    inputs   what it was made from, by name
    frames   ascending
    """

    def __init__(self, path: Path, archives: _Archives) -> None:
        """Raises InputError where there is none, or what it was made from cannot be read."""
        self.path, self._archives = path, archives
        with _readable(path), archives.reading(path) as archive:
            self.inputs: dict[str, str] = json.loads(archive.read(_INPUTS))
            self.frames = tuple(sorted(int(name) for name in archive.namelist() if name != _INPUTS))

    @property
    def nbytes(self) -> int:
        return self.path.stat().st_size

    def read(self, frame: int) -> StoredFrame:
        """Raises InputError where the file was damaged since it was looked at."""
        with _readable(self.path), self._archives.reading(self.path) as archive:
            data = archive.read(str(frame))
        with _readable(self.path):
            return _unpack(frame, data)

    def check(self, frames: Collection[int]) -> None:
        """Raise InputError where it does not hold these frames, or a byte that counts is not as it was written.

        Cost: the decompression of it all.
        """
        with _readable(self.path), self._archives.reading(self.path) as archive:
            if set(self.frames) != set(frames):
                raise zipfile.BadZipFile(f"it holds {len(self.frames)} frames of {len(frames)}")
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"checksum of {damaged}")

    def close(self) -> None:
        """Let go of the file, until it is read again."""
        self._archives.close(self.path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever comes of a damaged file (zipfile raises nearly anything) into InputError."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"a stored segment cannot be read: {error}", remedy="run again: it is made anew", path=path
        ) from error


class SegmentWriter:
    """A segment that is being made: frames in any order, then `finish`. A context manager that throws away what was
    not finished. Frames that were put can be read back.
    """

    def __init__(self, path: Path, inputs: Mapping[str, str], archives: _Archives, *, durable: bool) -> None:
        self.path, self._archives, self._durable = path, archives, durable
        self._finished = False
        self._part = part_path(path)
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._archive = zipfile.ZipFile(self._part, "a")
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            self._put(_INPUTS, json.dumps(dict(inputs), sort_keys=True, indent=1).encode("utf-8", "backslashreplace"))
        except BaseException:
            self._throw_away()
            raise

    def put(self, stored: StoredFrame) -> None:
        """Keep a frame; each once."""
        self._put(str(stored.frame), _pack(stored))

    def read(self, frame: int) -> StoredFrame:
        """A frame that was put."""
        with self._lock:
            if not self._finished:
                return _unpack(frame, self._archive.read(str(frame)))
        with self._archives.reading(self.path) as archive:
            return _unpack(frame, archive.read(str(frame)))

    def finish(self) -> None:
        """The segment takes its name; its frames can still be read. Raises OutputError where it cannot be written."""
        try:
            with self._lock:
                self._archive.close()
                if self._durable:
                    with open(self._part, "rb+") as file:
                        os.fsync(file.fileno())
                self._archives.close(self.path)  # one that is replaced
                os.replace(self._part, self.path)
                self._finished = True
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._throw_away()

    def _cannot_write(self, error: OSError) -> OutputError:
        told = cannot_write(self.path, error, what="stored segment")
        if not self._durable:
            remedy = "free some space there, or set TMPDIR to another folder"
            told = OutputError(told.what, remedy=remedy, path=self.path)
        return told

    def _throw_away(self) -> None:
        with suppress(OSError):  # on a full disk it cannot even be closed
            self._archive.close()
        self._archives.close(self.path)
        self._part.unlink(missing_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(name)
        try:
            with self._lock:
                self._archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 1)
        except OSError as error:
            raise self._cannot_write(error) from error


class SegmentStore:
    """A folder of segments.

    durable   False for a store that does not outlive the run: files are not forced to the disk
    """

    def __init__(self, folder: str | Path, *, durable: bool = True) -> None:
        self.folder = Path(folder)
        self._durable = durable
        self._archives = _Archives()
        if durable:
            remove_leftovers(self.folder)

    def get(self, digest: str, frames: Collection[int]) -> StoredSegment | None:
        """The segment of that name, looked at to its last byte; None where there is none, or a damaged one, which is
        then made anew.

        frames   all that it has to hold
        """
        found = self._open(self._path(digest))
        if found is not None:
            try:
                found.check(frames)
            except InputError:
                found.close()
                return None
        return found

    def begin(self, digest: str, inputs: Mapping[str, str]) -> SegmentWriter:
        """Make a segment; one of that name is replaced when it is finished."""
        return SegmentWriter(self._path(digest), inputs, self._archives, durable=self._durable)

    def paths(self) -> list[Path]:
        """The files of all segments, damaged ones too, by name."""
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def entries(self) -> Iterator[StoredSegment]:
        """All segments that can be opened, by name; of their frames nothing is looked at."""
        for path in self.paths():
            if (found := self._open(path)) is not None:
                yield found

    def drop(self, digest: str) -> None:
        """Delete a segment, if there is one of that name."""
        self._path(digest).unlink(missing_ok=True)

    def _open(self, path: Path) -> StoredSegment | None:
        try:
            return StoredSegment(path, self._archives)
        except InputError:
            self._archives.close(path)
            return None

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}{_SUFFIX}"


def _pack(stored: StoredFrame) -> bytes:
    """A line of JSON, then the boxes of the objects, 16-bit and row by row."""
    boxes, planes = [], []
    for number, matte in sorted(stored.mattes.items()):
        rows, columns = np.flatnonzero(matte.any(1)), np.flatnonzero(matte.any(0))
        y0, y1 = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
        x0, x1 = (int(columns[0]), int(columns[-1]) + 1) if columns.size else (0, 0)
        boxes.append([number, y0, y1, x0, x1])
        planes.append(np.rint(matte[y0:y1, x0:x1] * np.float32(65535)).astype("<u2").tobytes())
    window = stored.window
    head = {
        "boxes": boxes,
        "size": list(stored.size),
        "window": [window.x0, window.y0, window.x1, window.y1],
        "signals": {str(n): dict(told) for n, told in sorted(stored.signals.items())},
    }
    return json.dumps(head).encode() + b"\n" + b"".join(planes)


def _unpack(frame: int, data: bytes) -> StoredFrame:
    line, _, planes = data.partition(b"\n")
    head: dict[str, Any] = json.loads(line)
    h, w = head["size"]
    mattes: Mattes = {}
    at = 0
    for number, y0, y1, x0, x1 in head["boxes"]:
        count = (y1 - y0) * (x1 - x0)
        box = np.frombuffer(planes, "<u2", count, at).reshape(y1 - y0, x1 - x0)
        matte = np.zeros((h, w), np.float32)
        matte[y0:y1, x0:x1] = box / np.float32(65535)
        mattes[number] = matte
        at += 2 * count
    signals = {int(n): told for n, told in head["signals"].items()}
    return StoredFrame(frame, mattes, Window(*head["window"]), (h, w), signals)
