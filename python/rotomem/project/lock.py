"""One run at a time: a lock that dies with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from rotomem.errors import ProjectError
from rotomem.io.atomic import cannot_write

LOCK_NAME = "lock"


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the project whose cache folder this is; the folder is made where it is missing.

    The system lets go of the lock when its process ends, however it ends, so that what a killed run left is taken
    over without asking. The file stays: it says who held it last.

    Raises ProjectError saying which process on which machine holds it, or that this file system has no locks;
    OutputError where the folder cannot be made.
    """
    path = cache / LOCK_NAME
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise cannot_write(path, error, what="lock of the project") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectError(
                "another run works on this project",
                remedy="wait for it, or stop it; what it has done is kept",
                path=path,
                **_owner(descriptor),
            ) from None
        except OSError as error:
            raise ProjectError(
                f"the file system of the cache has no locks: {os.strerror(error.errno or errno.ENOLCK)}",
                remedy='put the cache on another, with cache = "FOLDER" in the project',
                path=path,
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _owner(descriptor: int) -> dict[str, object]:
    try:
        told = json.loads(os.pread(descriptor, 4096, 0))
        return {"pid": told["pid"], "host": told["host"]}
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock, and has not yet said who it is
        return {}
