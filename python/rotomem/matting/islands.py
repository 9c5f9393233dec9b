"""The connected parts of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Islands:
    """4-connected parts of a mask [h, w], in reading order of their first pixels.

    sizes       pixels of each
    at_border   whether each touches the picture's border

    Horizontal runs are the nodes of a graph whose edges join runs that touch in neighbouring rows; labels sink to
    the first run of each part by hooking and pointer jumping, so the cost follows the runs, not the pixels.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        h, w = self._shape = mask.shape
        padded = np.zeros((h, w + 2), np.int8)
        padded[:, 1:-1] = mask
        change = np.diff(padded, axis=1)
        row, start = np.nonzero(change == 1)
        _, end = np.nonzero(change == -1)
        above, below = _touching_runs(row, start, end, w)
        label = np.arange(row.size)
        while True:
            low = np.minimum(label[above], label[below])
            before = label.copy()
            np.minimum.at(label, before[above], low)
            np.minimum.at(label, before[below], low)
            while not np.array_equal(label, label[label]):
                label = label[label]
            if np.array_equal(label, before):
                break
        _, self._part = np.unique(label, return_inverse=True)
        self._runs = row, start, end
        count = int(self._part.max()) + 1 if row.size else 0
        self.sizes = np.bincount(self._part, weights=end - start, minlength=count).astype(np.int64)
        self.at_border = np.zeros(count, bool)
        self.at_border[self._part[(row == 0) | (row == h - 1) | (start == 0) | (end == w)]] = True

    def touched(self, marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which parts [N] hold a pixel of `marks` [h, w]."""
        row, start, end = self._runs
        before = np.pad(np.cumsum(marks, axis=1), ((0, 0), (1, 0)))
        touched = np.zeros(self.sizes.size, bool)
        touched[self._part[before[row, end] > before[row, start]]] = True
        return touched

    def mask(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[h, w], true on the parts that are chosen [N]."""
        h, w = self._shape
        row, start, end = self._runs
        own = chosen[self._part]
        out = np.zeros((h, w + 1), np.int8)
        out[row[own], start[own]] = 1
        out[row[own], end[own]] -= 1
        shown: NDArray[np.bool_] = np.cumsum(out, axis=1)[:, :-1] > 0
        return shown


def _touching_runs(
    row: NDArray[np.intp], start: NDArray[np.intp], end: NDArray[np.intp], w: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of runs in neighbouring rows that share a column; runs are sorted by row, then by start."""
    stride = w + 1
    # for every run: which runs of the next row end after it starts and start before it ends
    first = np.searchsorted(row * stride + end, (row + 1) * stride + start, side="right")
    stop = np.searchsorted(row * stride + start, (row + 1) * stride + end, side="left")
    count = np.maximum(stop - first, 0)
    above = np.repeat(np.arange(row.size), count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return above, np.repeat(first, count) + offset
