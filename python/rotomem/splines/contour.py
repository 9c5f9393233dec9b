"""Outlines of a matte, to a part of a pixel: where its coverage is one half.

Marching squares (Lorensen and Cline, SIGGRAPH 1987, in the plane) between pixel centres, with zero around the frame,
so that an object cut off by the frame's border has its outline on that border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rotomem.splines.types import Array, signed_area

_T, _R, _B, _L = range(4)  # sides of a cell: top, right, bottom, left
# Corners that are inside, as bits 1 top left, 2 top right, 4 bottom right, 8 bottom left -> the sides on which an
# outline comes and goes, the inside on its right. 5 and 10 have two lines, told apart by the middle of the cell.
_LINES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((_T, _L),),
    2: ((_R, _T),),
    4: ((_B, _R),),
    8: ((_L, _B),),
    14: ((_L, _T),),
    13: ((_T, _R),),
    11: ((_R, _B),),
    7: ((_B, _L),),
    3: ((_R, _L),),
    12: ((_L, _R),),
    9: ((_T, _B),),
    6: ((_B, _T),),
}
_SADDLES = {
    (5, True): ((_T, _R), (_B, _L)),
    (5, False): ((_T, _L), (_B, _R)),
    (10, True): ((_L, _T), (_R, _B)),
    (10, False): ((_R, _T), (_L, _B)),
}


def outlines(alpha: NDArray[np.floating], level: float = 0.5, least_area: float = 0.0) -> list[Array]:
    """Closed polygons [M, 2] around what a matte covers by at least `level`, in pixels, (0, 0) the upper left corner.

    An outline runs clockwise on the screen (positive area), that of a hole the other way round. Those that enclose
    less than `least_area` square pixels are left out. Larger ones come first.
    """
    alpha = np.asarray(alpha)
    rows, columns = np.flatnonzero((alpha >= level).any(axis=1)), np.flatnonzero((alpha >= level).any(axis=0))
    if rows.size == 0:
        return []
    # Only what is around: of what lies outside, the nearest pixels tell where the outline is between them.
    top, left = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
    a = np.pad(alpha[top : rows[-1] + 2, left : columns[-1] + 2].astype(np.float64), 1)
    inside = a >= level
    code = inside[:-1, :-1] + 2 * inside[:-1, 1:] + 4 * inside[1:, 1:] + 8 * inside[1:, :-1]
    rows, columns = np.nonzero((code != 0) & (code != 15))
    code = code[rows, columns]
    middle = (a[rows, columns] + a[rows, columns + 1] + a[rows + 1, columns] + a[rows + 1, columns + 1]) / 4 >= level
    width = a.shape[1]
    count = a.size
    # A horizontal grid edge has the number of its left pixel, a vertical one that of its upper pixel plus `count`.
    here = rows * width + columns
    side = np.stack([here, here + 1 + count, here + width, here + count])
    following = np.full(2 * count, -1, np.int64)
    for case, lines in _LINES.items():
        cells = code == case
        for come, go in lines:
            following[side[come, cells]] = side[go, cells]
    for (case, joined), lines in _SADDLES.items():
        cells = (code == case) & (middle == joined)
        for come, go in lines:
            following[side[come, cells]] = side[go, cells]
    corner = np.array([left, top])
    found = [_places(edges, a, level) + corner for edges in _loops(following)]
    sized = [(abs(signed_area(p)), p) for p in found]
    return [p for size, p in sorted(sized, key=lambda item: -item[0]) if size > least_area]


def _loops(following: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    chain: dict[int, int] = {int(e): int(following[e]) for e in np.flatnonzero(following >= 0)}
    loops = []
    while chain:
        edge = start = next(iter(chain))
        loop = []
        while True:
            loop.append(edge)
            edge = chain.pop(edge)
            if edge == start:
                break
        loops.append(np.array(loop))
    return loops


def _places(edges: NDArray[np.int64], a: Array, level: float) -> Array:
    """Where an outline crosses grid edges."""
    upright, at = np.divmod(edges, a.size)
    row, column = np.divmod(at, a.shape[1])
    one, other = a[row, column], a[row + upright, column + 1 - upright]
    share = (level - one) / np.where(one == other, 1.0, other - one)
    # Pixel (row, column) of the padded matte has its centre half a pixel before that place.
    return np.stack([column - 0.5 + share * (1 - upright), row - 0.5 + share * upright], axis=1)


class Outline:
    """A closed polygon that can be asked for the place at any length along it.

    points    [M, 2] at even distances, 0.75 pixels or less; the first is the polygon's
    length    of its way around
    """

    def __init__(self, polygon: Array, smooth: float = 0.0) -> None:
        """`smooth`: sigma in pixels of the Gaussian that evens out the steps of a matte's raster along the way."""
        closed = np.concatenate([polygon, polygon[:1]])
        way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
        count = max(16, int(np.ceil(way[-1] / 0.75)))
        at = np.arange(count) * (way[-1] / count)
        points = np.stack([np.interp(at, way, closed[:, k]) for k in (0, 1)], axis=1)
        sigma = min(smooth, way[-1] / 120) / (way[-1] / count)
        if sigma > 0:
            points = _blurred(points, sigma)
        steps = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
        self.points = points
        self._way = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = float(self._way[-1])

    def evenly(self, count: int) -> Array:
        """[count] as many places along the way, at equal distances from its start."""
        return np.arange(count, dtype=np.float64) * (self.length / count)

    def at(self, places: Array) -> Array:
        """[..., 2] the places that lie `places` pixels along the way; it may be walked round several times."""
        wrapped = np.mod(places, self.length)
        closed = np.concatenate([self.points, self.points[:1]])
        return np.stack([np.interp(wrapped, self._way, closed[:, k]) for k in (0, 1)], axis=-1)


def _blurred(points: Array, sigma: float) -> Array:
    """A closed polygon's points, each the Gaussian mean of its neighbours (sigma in points)."""
    frequency = np.fft.rfftfreq(len(points))
    gain = np.exp(-2 * (np.pi * frequency * sigma) ** 2)
    return np.fft.irfft(np.fft.rfft(points, axis=0) * gain[:, None], len(points), axis=0)
