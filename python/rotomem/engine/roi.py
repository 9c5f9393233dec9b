"""Region of interest: the network looks at a window of the plate that follows the objects, and sees them finer.

Where the objects go is told by a scout, which tracks the segment on the whole frame at a low resolution. The windows
of all frames are then planned ahead, once for both directions: all have one size and one scale, so the session's
tensors keep their shapes; they stand still as long as every object fits with a margin, then move by whole elements
of the feature map, so that what the session remembers by place moves along without resampling (`Session.shift`).
A window never costs the network more than the whole frame at its size would, and is never enlarged beyond the plate.
Outside the window an object is nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import count

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.geometry import ShotGeometry, fit, rim_of
from rotomem.errors import UsageError
from rotomem.types import Window

OFF, AUTO = "off", "auto"
"""What may stand in the place of a window: the whole canvas; windows that follow the objects."""

_MARGIN = 0.25  # of the objects' mean side, all around them at their largest
_LEAST = 12  # elements along a window's side: the network wants surroundings
_FINER = 1.25  # times the resolution of the whole frame: for less than that a window is not worth its scout
_WORTH = 0.7  # of the canvas: most that a window may be
_SCOUTED = 40  # pixels the scout should see the smallest key's object across
_SCOUT = 240
_FAINT = 0.05  # most that a scout's matte may hold where nothing is seen
_SEEN = 0.25  # of the matte's largest value, from which a scout's pixel counts
_STRAY = 0.005  # share of an object's mass at either end of an axis that is not looked at: specks far away


@dataclass(frozen=True)
class Region:
    """The windows of one segment.

    windows    frame -> window on the plate's canvas; all of one size
    geometry   of a window and its network picture
    """

    windows: Mapping[int, Window]
    geometry: ShotGeometry


def moved(old: Window, new: Window, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(down, right) between two windows of one size, in elements of the feature map.

    size      (h, w) of the network picture of a window
    stride    of the model

    Whole numbers but where a window lies against the far edge of a canvas that is no multiple of an element; there
    the nearest.
    """
    down = (new.y0 - old.y0) * size[0] / (old.height * stride)
    right = (new.x0 - old.x0) * size[1] / (old.width * stride)
    return round(down), round(right)


def extent(mattes: Iterable[NDArray[np.float32]], window: Window, *, drawn: bool = False) -> Window | None:
    """The box around objects, in pixels of the plate; None where none is.

    mattes   each [h, w] 0..1, covering `window`
    drawn    True where the artist made them: then every pixel counts, else likely ones, and no stray speck
    """
    found: Window | None = None
    for matte in mattes:
        least = 0.0 if drawn else max(_SEEN * float(matte.max()), _FAINT)
        seen = np.where(matte > least, matte, np.float32(0)) if least else matte
        rows = seen.sum(1, dtype=np.float64)
        if not rows.any():
            continue
        stray = 0.0 if drawn else _STRAY
        y0, y1 = _inner(rows, stray)
        x0, x1 = _inner(seen[y0:y1].sum(0, dtype=np.float64), stray)
        wide, tall = window.width / matte.shape[1], window.height / matte.shape[0]
        box = Window(
            window.x0 + math.floor(x0 * wide),
            window.y0 + math.floor(y0 * tall),
            window.x0 + math.ceil(x1 * wide),
            window.y0 + math.ceil(y1 * tall),
        )
        found = box if found is None else found.union(box)
    return found


def _inner(mass: NDArray[np.float64], stray: float) -> tuple[int, int]:
    """Where a row of masses begins and ends, half-open, but for the share `stray` of it at either end."""
    total = np.cumsum(mass)
    first = int(np.searchsorted(total, stray * total[-1], "right"))
    return first, int(np.searchsorted(total, (1 - stray) * total[-1])) + 1


def scout_size(keys: Iterable[Window], canvas: Window, size: int | None, pixel_aspect: float = 1.0) -> int:
    """Shorter side of the picture on which a scout still sees the smallest of the keyed objects.

    keys   a box for every object that a key shows
    size   of the network picture; the scout's is never larger
    """
    shorter = min(fit(canvas.height, canvas.width, None, pixel_aspect))
    least = min((math.sqrt(k.width * pixel_aspect * k.height) for k in keys), default=math.inf)
    wanted = max(_SCOUT, math.ceil(_SCOUTED / least * shorter))
    return min(wanted, shorter if size is None else size, shorter)


def plan_region(
    extents: Mapping[int, Window | None],
    canvas: Window,
    *,
    size: int | None,
    stride: int,
    moving: bool = True,
    pixel_aspect: float = 1.0,
    rim: int | None = 0,
) -> Region | None:
    """Windows around the objects on every frame; None where the whole frame does as well.

    extents   frame -> box around the objects; None where they are not seen: the window then stays where it was
    size      shorter side of the network picture of a whole frame: what it costs is what a window may cost
    stride    of the model
    moving    False for one window that holds them on all frames
    """
    boxes = [box for box in extents.values() if box is not None]
    if not boxes:
        return None
    if not moving:
        boxes = [reduce(Window.union, boxes)]
        extents = dict.fromkeys(extents, boxes[0])
    width, height = max(b.width for b in boxes), max(b.height for b in boxes)
    margin = _MARGIN * math.sqrt(width * pixel_aspect * height)
    around = (margin / pixel_aspect, margin)
    whole_h, whole_w = fit(canvas.height, canvas.width, size, pixel_aspect)
    for side in count(stride):  # of an element of the feature map, in lines of the plate
        cell = (max(round(side / pixel_aspect), 1), side)
        kx, ky = _elements(width + 2 * around[0], cell[0]), _elements(height + 2 * around[1], cell[1])
        if kx * ky * stride**2 <= whole_h * whole_w or side * whole_h >= stride * canvas.height:
            break
    w, h = min(kx * cell[0], canvas.width), min(ky * cell[1], canvas.height)
    finer = canvas.height * stride / (whole_h * cell[1])
    if finer < _FINER or w * h > _WORTH * canvas.width * canvas.height:
        return None
    inner = max(round(h * stride / cell[1]), 1), max(round(w * stride / cell[0]), 1)
    geometry = ShotGeometry(h, w, *inner, rim_of(*inner, rim))
    places = _follow(extents, canvas, (w, h), cell, around)
    return Region({f: Window(x, y, x + w, y + h) for f, (x, y) in places.items()}, geometry)


def fixed_region(
    frames: Iterable[int],
    window: Window,
    canvas: Window,
    *,
    size: int | None,
    pixel_aspect: float = 1.0,
    rim: int | None = 0,
) -> Region:
    """The same window on every frame, what of it lies on the canvas. Raises UsageError where nothing does."""
    inside = window.intersect(canvas)
    if inside.empty:
        raise UsageError(
            f"the region {window} lies outside of the plate",
            remedy=f"give a window that overlaps {canvas}, as WIDTHxHEIGHT+X+Y",
        )
    geometry = ShotGeometry.of(inside.height, inside.width, size=size, pixel_aspect=pixel_aspect, rim=rim)
    return Region(dict.fromkeys(frames, inside), geometry)


def _elements(pixels: float, cell: int) -> int:
    return max(math.ceil(pixels / cell), _LEAST)


def _follow(
    extents: Mapping[int, Window | None],
    canvas: Window,
    size: tuple[int, int],
    cell: tuple[int, int],
    around: tuple[float, float],
) -> dict[int, tuple[int, int]]:
    """Frame -> (x0, y0) of a window that moves as seldom as it can: it stands still as long as there is a place that
    holds the objects of all those frames with half of the margin around them.
    """
    free = _anywhere(canvas, size)
    places: dict[int, tuple[int, int]] = {}
    run: list[int] = []
    held = free
    for frame in sorted(extents):
        box = extents[frame]
        if box is not None:
            able = (
                _holding(box.x0, box.x1, size[0], around[0] / 2, free[0]),
                _holding(box.y0, box.y1, size[1], around[1] / 2, free[1]),
            )
            both = tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(held, able, strict=True))
            if any(low > high for low, high in both):
                places.update(dict.fromkeys(run, _middle(held, free, cell)))
                run, both = [], able
            held = (both[0], both[1])
        run.append(frame)
    places.update(dict.fromkeys(run, _middle(held, free, cell)))
    return places


_Range = tuple[float, float]


def _anywhere(canvas: Window, size: tuple[int, int]) -> tuple[_Range, _Range]:
    return (canvas.x0, canvas.x1 - size[0]), (canvas.y0, canvas.y1 - size[1])


def _holding(low: int, high: int, size: int, around: float, free: _Range) -> _Range:
    """Where a window of `size` may begin to hold low..high; as near to that as the canvas lets it."""
    first, last = (min(max(at, free[0]), free[1]) for at in (high + around - size, low - around))
    return (first, last) if first <= last else ((first + last) / 2, (first + last) / 2)


def _middle(held: tuple[_Range, _Range], free: tuple[_Range, _Range], cell: tuple[int, int]) -> tuple[int, int]:
    """A place in the middle, whole elements away from the canvas' corner where the canvas lets it."""
    at = []
    for (low, high), (begin, end), step in zip(held, free, cell, strict=True):
        place = begin + round(((low + high) / 2 - begin) / step) * step
        at.append(int(min(max(place, begin), end)))
    return at[0], at[1]
