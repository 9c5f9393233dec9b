"""Where in a matte something happens: boxes around edges, so that a large plate costs what its edges cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice]
_SIDE = 64


def edge_boxes(alpha: NDArray[np.float32], margin: int) -> Iterator[tuple[Box, Box]]:
    """Boxes of [H, W] that cover everything within `margin` pixels of where alpha is not one same value.

    Each comes as (inner, outer): inner boxes do not overlap, outer ones have the margin around, inside the picture.
    """
    h, w = alpha.shape
    rows, columns = range(0, h, _SIDE), range(0, w, _SIDE)
    low = np.minimum.reduceat(np.minimum.reduceat(alpha, rows, 0), columns, 1)
    high = np.maximum.reduceat(np.maximum.reduceat(alpha, rows, 0), columns, 1)
    for _ in range(-(-margin // _SIDE) if margin else 0):
        low, high = _spread(low, np.minimum), _spread(high, np.maximum)
    for y, x in runs(low != high):
        inner = (slice(y * _SIDE, min((y + 1) * _SIDE, h)), slice(x.start * _SIDE, min(x.stop * _SIDE, w)))
        outer = (
            slice(max(inner[0].start - margin, 0), min(inner[0].stop + margin, h)),
            slice(max(inner[1].start - margin, 0), min(inner[1].stop + margin, w)),
        )
        yield inner, outer


def runs(tiles: NDArray[np.bool_], longest: int = 8) -> Iterator[tuple[int, slice]]:
    """(row, columns) of the runs of true tiles, in reading order, cut where they are longer than `longest`."""
    for y, row in enumerate(tiles):
        x = 0
        while x < row.size:
            if not row[x]:
                x += 1
                continue
            end = x
            while end < row.size and row[end] and end - x < longest:
                end += 1
            yield y, slice(x, end)
            x = end


def _spread(tiles: NDArray[np.float32], most: np.ufunc) -> NDArray[np.float32]:
    """Every tile with the most extreme of itself and its neighbours."""
    padded = np.pad(tiles, 1, mode="edge")
    rows = most(most(padded[:-2], padded[1:-1]), padded[2:])
    spread: NDArray[np.float32] = most(most(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return spread
