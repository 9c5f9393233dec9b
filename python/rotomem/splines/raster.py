"""Curves to coverage: the exact area of every pixel that lies inside.

A polygon's edges are cut where they cross pixel borders; every piece then lies in one pixel and adds the area between
itself and the pixel's right side, signed by its direction, to that pixel, and its height to all pixels right of it:
the accumulation buffer of font rasterisers (R. Levien, font-rs; before it, FreeType's smooth rasteriser).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rotomem.splines.types import Array, Curve, Shape, flatten
from rotomem.types import Window

_STEPS_PER_PIXEL, _MOST_STEPS = 2, 64
_DUST = 1e-9


def rasterise(shapes: Sequence[Shape], frame: int, window: Window) -> NDArray[np.float32]:
    """[h, w] float32 0..1: what the shapes of one object cover of every pixel of `window` on a frame.

    From the first shape to the last: one that adds goes over what is there, a + c - a c, one that subtracts leaves
    a (1 - c). Where no shape exists all is 0.
    """
    result = np.zeros((window.height, window.width))
    for shape in shapes:
        curve = shape.at(frame)
        if curve is None:
            continue
        covered = coverage(curve, window)
        result = result * (1 - covered) if shape.subtract else result + covered - result * covered
    return result.astype(np.float32)


def coverage(curve: Curve, window: Window) -> Array:
    """[h, w] float64 0..1: the share of every pixel of `window` that lies inside a curve, with its feather.

    Non-zero winding; in the few pixels where a curve crosses itself the share is that of its summed windings.
    A feather is the mean of outlines evenly spaced from the curve to the feather's outer edge.
    """
    widest = float(curve.feather.max())
    if widest == 0:
        return _filled(flatten(curve.points), window)
    steps = min(max(4, math.ceil(_STEPS_PER_PIXEL * widest)), _MOST_STEPS)
    total = np.zeros((window.height, window.width))
    for step in range(steps):
        total += _filled(flatten(curve.outer((step + 0.5) / steps)), window)
    return total / steps


def _filled(polygon: Array, window: Window) -> Array:
    result = np.zeros((window.height, window.width))
    (x0, y0), (x1, y1) = np.floor(polygon.min(axis=0)), np.ceil(polygon.max(axis=0))
    # In float: a wild coordinate may be beyond any integer type.
    x0, x1 = (float(np.clip(x, window.x0, window.x1)) for x in (x0, x1))
    y0, y1 = (float(np.clip(y, window.y0, window.y1)) for y in (y0, y1))
    around = Window(int(x0), int(y0), int(x1), int(y1))
    if not around.empty:
        result[around.slices_in(window)] = _snapped(np.abs(winding(polygon, around)))
    return result


def _snapped(share: Array) -> Array:
    """0..1, without the dust of long sums: a pixel that nothing touches is exactly 0, an inner one exactly 1."""
    share = np.where(share < _DUST, 0.0, share)
    return np.where(share > 1 - _DUST, 1.0, share)


def winding(polygon: Array, window: Window) -> Array:
    """[h, w] the mean winding number of a closed polygon [M, 2] over every pixel of `window`.

    Times the pixel's area it is exact, wherever the polygon runs, also where it leaves the window.
    """
    height, width = window.height, window.width
    if window.empty:
        return np.zeros((height, width))
    start = polygon - (window.x0, window.y0)
    end = np.roll(start, -1, axis=0)
    seen = (np.minimum(start[:, 1], end[:, 1]) < height) & (np.maximum(start[:, 1], end[:, 1]) > 0)
    start, end = _cut(*_cut(start[seen], end[seen], axis=1, limit=height), axis=0, limit=width)
    middle = (start + end) / 2
    rise = end[:, 1] - start[:, 1]
    row = np.floor(middle[:, 1]).astype(np.int64)
    # Left of the window counts as its left side; right of it nothing is left to cover.
    x = np.clip(middle[:, 0], 0, width)
    column = np.floor(x).astype(np.int64)
    inside = (row >= 0) & (row < height) & (column < width)
    row, column, rise, x = row[inside], column[inside], rise[inside], x[inside]
    right = x - column
    stride = width + 1
    at = row * stride + column
    cells = np.bincount(at, rise * (1 - right), height * stride) + np.bincount(at + 1, rise * right, height * stride)
    return np.cumsum(cells.reshape(height, stride)[:, :width], axis=1)


def _cut(start: Array, end: Array, *, axis: int, limit: int) -> tuple[Array, Array]:
    """Edges cut where they cross a whole number 0..limit of one coordinate."""
    a, b = start[:, axis], end[:, axis]
    low = np.clip(np.floor(np.minimum(a, b)), -1, limit).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(a, b)), 0, limit + 1).astype(np.int64)
    pieces = np.maximum(high - low, 1)
    edge = np.repeat(np.arange(len(a)), pieces)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    forward = (b >= a)[edge]
    # The k-th border met on the way, as a share of the way.
    border = np.where(forward, low[edge] + number, high[edge] - number)
    length = np.where(b == a, 1.0, b - a)[edge]
    share = np.clip((border - a[edge]) / length, 0, 1)
    share[number == 0] = 0
    following = np.append(share[1:], 1.0)
    following[np.cumsum(pieces) - 1] = 1.0
    way = (end - start)[edge]
    return start[edge] + share[:, None] * way, start[edge] + following[:, None] * way
