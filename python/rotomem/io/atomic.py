"""Files that appear whole or not at all.

The bytes go to a temporary name in the target's own folder, are checked and forced to the disk, and only then
take the target's name in one step. A kill at any moment leaves the old file or the new one, never a piece.

The temporary name begins with a dot and ends in `.rotomem-part`: no `*.exr` matches it, and a sequence parser
that looks for `name.####.exr` never takes it for a frame (fileseq reads `a.1001.exr.tmp` as a sequence).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from rotomem.errors import OutputError

PART_SUFFIX = ".rotomem-part"
_LONGEST_NAME = 255  # bytes, on every file system in use
_serial = itertools.count()
_begun: set[Path] = set()


def part_path(path: Path) -> Path:
    """The temporary name for `path`: same folder, unique to this host, process and call."""
    owner = f"{socket.gethostname()[:40]}-{os.getpid()}-{next(_serial)}"
    name = f".{path.name}.{owner}{PART_SUFFIX}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        name = f".{digest}.{owner}{PART_SUFFIX}"
    return path.with_name(name)


@contextlib.contextmanager
def whole_file(path: Path, *, frame: int | None = None, what: str = "matte") -> Iterator[Path]:
    """Give a temporary path to write; when the block ends well, the file takes the name `path`.

    path     the name to appear; its folder is made where it is missing
    frame    for the error message only
    what     the file is, for the same
    yields   the temporary path; the block writes it, and checks it before it ends

    An exception in the block, KeyboardInterrupt included, removes the temporary file, leaves `path` as it was
    and goes on to the caller; an OSError becomes an OutputError. Cost: one fsync of the file, one of its folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise cannot_write(path, e, frame=frame, what=what) from e
    if path.is_dir():
        raise OutputError(
            "a folder stands where the file should go",
            remedy="choose another output name, or move the folder away",
            path=path,
            frame=frame,
        )
    part = part_path(path)
    _begun.add(part)
    try:
        yield part
        _flush_to_disk(part)
        os.replace(part, path)
        _flush_folder(path.parent)
    except BaseException as e:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(e, OSError):
            raise cannot_write(path, e, frame=frame, what=what) from e
        raise
    finally:
        _begun.discard(part)


def remove_begun() -> None:
    """Remove the temporary files of this process: for one that must end at once, with files being written."""
    for part in tuple(_begun):
        with contextlib.suppress(OSError):
            part.unlink()


def cannot_write(path: Path, cause: OSError | str, *, frame: int | None = None, what: str = "matte") -> OutputError:
    """The OutputError for a file that could not be written, with the remedy that fits its cause."""
    reason = cause if isinstance(cause, str) else (os.strerror(cause.errno) if cause.errno else str(cause))
    number = None if isinstance(cause, str) else cause.errno
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    # Of a movie there are no whole frames until it is finished, of other files never.
    framewise = what == "matte" and path.suffix.lower() != ".mov"
    kept = "; whole frames are kept, so the run can be resumed" if framewise else ""
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _nearly_full(folder):
        remedy = "free some space or choose another folder" + kept
    elif not folder.is_dir():
        remedy = "part of the path is a file; choose another folder"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS) or not os.access(folder, os.W_OK):
        remedy = f"make {folder} writable or choose another folder"
    else:
        remedy = "check the folder and the disk" + kept
    return OutputError(f"cannot write the {what}: {reason}", remedy=remedy, path=path, frame=frame)


def remove_leftovers(folder: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove temporary files that killed runs left in `folder`; returns how many.

    Younger ones are kept, since another machine may be writing them now. A folder that cannot be listed is
    left alone: the write that follows says why.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and entry.name.endswith(PART_SUFFIX):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > older_than_s:
                        os.unlink(entry.path)
                        removed += 1
    return removed


def _flush_to_disk(path: Path) -> None:
    # Windows flushes only through a descriptor that may write.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename. Some network file systems refuse it, Windows always does.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _nearly_full(folder: Path) -> bool:
    with contextlib.suppress(OSError, AttributeError):
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize < 1 << 20
    return False
