"""Which file is in which format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rotomem.errors import UsageError
from rotomem.splines import blender, document, fxs, nuke
from rotomem.splines.types import SplineError, Splines

WRITERS: dict[str, Callable[[Splines], str]] = {
    ".json": document.write,
    ".fxs": fxs.write,
    ".nk": nuke.write,
    ".py": blender.write,
}
READABLE = frozenset({".json", ".fxs", ".nk"})


def is_spline_file(path: str | Path) -> bool:
    """Whether a path's extension is one that splines are read from."""
    return Path(path).suffix.lower() in READABLE


def read_splines(path: str | Path, size: tuple[int, int]) -> Splines:
    """The splines of a file for a plate of `size` width, height.

    Raises SplineError with path and remedy where they cannot be read or were drawn on another format.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise SplineError(f"the splines cannot be read: {reason}", remedy="check the path", path=path) from e
    try:
        match path.suffix.lower():
            case ".fxs":
                splines = fxs.read(text)
            case ".nk":
                splines = nuke.read(text, size)
            case _:
                splines = document.read(text)
    except SplineError as e:
        raise SplineError(f"the splines cannot be read: {e.what}", remedy=e.remedy, path=path, **e.context) from e
    if splines.size != size:
        raise SplineError(
            f"the splines were drawn on {splines.size[0]}x{splines.size[1]}, the plate is {size[0]}x{size[1]}",
            remedy="draw them on the plate itself; splines are never scaled",
            path=path,
        )
    return splines


def check_writable(path: str | Path) -> None:
    """Raise UsageError where `path` ends in no format that splines are written in."""
    if Path(path).suffix.lower() not in WRITERS:
        raise UsageError(
            f"splines are not written as '{Path(path).suffix or path}'",
            remedy="use .json, .fxs (Silhouette), .nk (Nuke) or .py (a script that makes masks in Blender)",
        )


def write_splines(splines: Splines, path: str | Path) -> str:
    """The text of a file of the format that `path` ends in. Raises UsageError where it is none of them."""
    check_writable(path)
    return WRITERS[Path(path).suffix.lower()](splines)
