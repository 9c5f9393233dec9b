"""The mattes of a shot as splines: traced frame by frame, then measured against the mattes they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import UsageError
from rotomem.io.atomic import whole_file
from rotomem.io.exr import StillHeader, read_header, shown
from rotomem.io.matte_files import MatteFiles, find_mattes
from rotomem.io.sequence import compact_frames, parse_frames
from rotomem.splines.files import write_splines
from rotomem.splines.raster import rasterise
from rotomem.splines.trace import TraceOptions, Tracer
from rotomem.splines.types import Shape, SplineError, Splines
from rotomem.types import Window

_MEASURED = 24
"""Frames on which curves are compared with the matte: evenly spread, the first and the last among them."""


@dataclass(frozen=True)
class TracedObject:
    """What tracing made of one object.

    shapes, keys    of all frames
    points          of its shapes on a frame, mean over the frames on which it has any
    overlap         J: intersection over union of rasterised curves and matte, both at one half; mean and least
    """

    name: str
    shapes: int
    keys: int
    points: float
    overlap: float
    least_overlap: float


def save_splines(splines: Splines, path: str | Path) -> None:
    """Write splines in the format that the name asks for; the file appears whole or not at all.

    Raises UsageError for a name that asks for no format (`check_writable` says so before the work), OutputError.
    """
    with whole_file(Path(path), what="spline file") as part:
        part.write_text(write_splines(splines, path), encoding="utf-8")


def trace_mattes(
    mattes: str | Path,
    *,
    only: Sequence[str] | None = None,
    frames: str | None = None,
    options: TraceOptions | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> tuple[Splines, list[TracedObject]]:
    """The splines of a shot's mattes, and how good they are.

    mattes    the folder that `rotomem track` wrote to, or a pattern
    only      names of objects; None: all
    frames    "1001-1100x2,1120"; None: all there are. Curves are traced over runs of frames that follow each other
    on_frame  called with how many frames are done, and of how many

    Coordinates count from the display window of the first file. An object without any pixel is left out, and
    noted. Raises MissingFrameError where there are no mattes, UsageError for objects or frames that they do not have,
    SplineError where they show nothing.
    """
    options = options or TraceOptions()
    found = _chosen(find_mattes(mattes), only)
    numbers = found.frames
    if frames is not None:
        wanted = set(parse_frames(frames))
        numbers = tuple(f for f in numbers if f in wanted)
        if not numbers:
            raise UsageError(f"the mattes have none of the frames {frames}", remedy=compact_frames(found.frames))
    first = _header(found, numbers[0])
    display = first.display_window
    tracers = {name: Tracer(name, options) for name in found.objects}
    for done, frame in enumerate(numbers, 1):
        canvas = display.union(_header(found, frame).parts[0].data_window)
        for name, alpha in found.read(frame, canvas).items():
            tracers[name].add(frame, alpha, (canvas.x0 - display.x0, canvas.y0 - display.y0))
        if on_frame is not None:
            on_frame(done, len(numbers))
    objects = {name: shapes for name, tracer in tracers.items() if (shapes := tracer.shapes())}
    if not objects:
        raise SplineError(
            "no pixel of the mattes is covered by a half",
            remedy="choose other objects or frames",
            path=mattes,
        )
    notes = tuple(f"'{name}' shows nothing to trace and is left out" for name in found.objects if name not in objects)
    splines = Splines((display.width, display.height), objects, first.pixel_aspect, notes)
    return splines, _measure(objects, found, numbers, display)


def _chosen(found: MatteFiles, only: Sequence[str] | None) -> MatteFiles:
    unknown = [name for name in only or () if name not in found.objects]
    if unknown:
        raise UsageError(
            f"the mattes have no object '{unknown[0]}'", remedy=f"they have {', '.join(map(shown, found.objects))}"
        )
    if only is None:
        return found
    objects = {name: found.objects[name] for name in only}
    return MatteFiles(objects, tuple(sorted({f for files, _ in objects.values() for f in files})))


def _header(found: MatteFiles, frame: int) -> StillHeader:
    """Of the first file that there is for a frame; all files of a frame have one set of windows."""
    return read_header(next(files[frame] for files, _ in found.objects.values() if frame in files))


def _measure(
    objects: Mapping[str, tuple[Shape, ...]], found: MatteFiles, numbers: Sequence[int], display: Window
) -> list[TracedObject]:
    chosen = {numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, min(_MEASURED, len(numbers)))}
    own = Window(0, 0, display.width, display.height)
    overlaps: dict[str, list[float]] = {name: [] for name in objects}
    for frame in sorted(chosen):
        mattes = found.read(frame, display)
        for name, shapes in objects.items():
            overlaps[name].append(_overlap(rasterise(shapes, frame, own), mattes[name]))
    traced = []
    for name, shapes in objects.items():
        counts = [sum(len(next(iter(s.keys.values()))) for s in shapes if s.at(f) is not None) for f in numbers]
        there = [c for c in counts if c]
        keys = sum(len(s.keys) for s in shapes)
        j = overlaps[name]
        traced.append(TracedObject(name, len(shapes), keys, float(np.mean(there)), float(np.mean(j)), min(j)))
    return traced


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one >= 0.5, other >= 0.5
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 1.0
