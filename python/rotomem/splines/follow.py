"""Outlines over time: which of one frame is which of the next, and which place on it is which.

Places are matched by dynamic programming along both outlines (H. Sakoe and S. Chiba, 1978), on distance and
direction, so that a corner stays on its corner while the outline around it grows or shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rotomem.splines.contour import Outline
from rotomem.splines.types import Array, signed_area

_ROWS = 256  # places that are matched; those between them follow
_FINE = 4  # steps of the next outline for one of this
_FASTEST = 3  # times that an outline may stretch at one place from a frame to the next
_STIFF = 0.02  # what an uneven step costs, per square of its share
_SETTLING = 12  # rounds
_TOGETHER = 4.0  # places: sigma over which neighbours slide together
_NEAR, _FAR = 0.1, 3.0  # of even spacing
_RELAX = 0.04  # share of the way back to even spacing that places slide in a frame
_WIDEST_GAP = 5.0  # pixels between two places, and times their mean distance, at which a stretch is cut
_SPACING, _FEWEST, _MOST = 1.5, 48, 4096  # pixels between places; how many there are
_LONGEST = 500  # frames of a stretch: what is held in memory
_REACH = 3.0  # pixels on either side over which a direction is taken
_JUMP = 0.18, 8.0  # of the outline's diagonal, and pixels at least: places that leap so far are others

_Indices = NDArray[np.int64]


class Track:
    """One outline over consecutive frames: on each of them the same places, in order.

    outlines   of each frame
    ways       of each frame [M] ascending: how far along its outline the places lie
    """

    def __init__(self, first: int, hole: bool, outline: Outline) -> None:
        self.first = first
        self.hole = hole
        count = int(np.clip(np.ceil(outline.length / _SPACING), _FEWEST, _MOST))
        self.outlines = [outline]
        self.ways = [outline.evenly(count)]
        self.places = outline.at(self.ways[0])

    def __len__(self) -> int:
        return len(self.outlines)

    def follow(self, outline: Outline) -> bool:
        """Take the next frame's outline; False where its places are not this one's any more."""
        ways = match(self.places, outline)
        gaps = np.diff(np.append(ways, ways[0] + outline.length))
        if gaps.max() > _WIDEST_GAP * max(1.0, outline.length / len(ways)):
            return False
        places = outline.at(ways)
        motion = places - self.places
        leap = np.percentile(np.hypot(*(motion - np.median(motion, axis=0)).T), 95)
        if leap > max(_JUMP[1], _JUMP[0] * _diagonal(outline.points)):
            return False
        self.outlines.append(outline)
        self.ways.append(ways)
        self.places = places
        return True

    def settle(self) -> None:
        """Let the places slide along their outlines until they move evenly from frame to frame.

        A place is drawn towards the middle of where it is a frame before and after; what that moves it along its
        outline is taken, shared with its neighbours.
        """
        for _ in range(_SETTLING if len(self) > 2 else 0):
            places = np.stack([o.at(w) for o, w in zip(self.outlines, self.ways, strict=True)])
            pull = (places[:-2] + places[2:]) / 2 - places[1:-1]
            for f, drawn in enumerate(pull, 1):
                length = self.outlines[f].length
                slide = _circular_mean((drawn * _directions(places[f])).sum(axis=1) / 2, _TOGETHER)
                self.ways[f] = _slid(self.ways[f], slide, length)

    def sampled(self, ahead: float = 0.0) -> Array:
        """[F, M, 2] the places of all frames, or those a part of _REACH ahead of them (or behind) on the way."""
        return np.stack(
            [o.at(w + ahead * min(_REACH, o.length / 24)) for o, w in zip(self.outlines, self.ways, strict=True)]
        )


class Follower:
    """Turns the outlines of a matte, frame after frame, into tracks: each as long as it is one."""

    def __init__(self, smooth: float) -> None:
        """`smooth`: pixels, as Outline has it."""
        self._smooth = smooth
        self._alive: list[Track] = []

    def add(self, frame: int, polygons: Sequence[Array]) -> list[Track]:
        """Take the outlines of the next frame (contour.outlines); the tracks that ended before it.

        Frames ascend; a gap between them ends all tracks.
        """
        ended = [t for t in self._alive if t.first + len(t) != frame or len(t) >= _LONGEST]
        alive = [t for t in self._alive if t not in ended]
        outlines = [(Outline(p, self._smooth), signed_area(p) < 0) for p in polygons]
        going: list[Track] = []
        taken: set[int] = set()
        for _, t, o in _pairs(alive, outlines):
            if alive[t] not in going and o not in taken and alive[t].follow(outlines[o][0]):
                going.append(alive[t])
                taken.add(o)
        ended += [t for t in alive if t not in going]
        for o, (outline, hole) in enumerate(outlines):
            if o not in taken:
                going.append(Track(frame, hole, outline))
        self._alive = going
        return ended

    def finish(self) -> list[Track]:
        """The tracks that went on to the last frame."""
        ended, self._alive = self._alive, []
        return ended


def _pairs(tracks: Sequence[Track], outlines: Sequence[tuple[Outline, bool]]) -> list[tuple[float, int, int]]:
    """Tracks and outlines that may be one, best first: of the same kind, in the same place, of like size."""
    pairs = []
    for t, track in enumerate(tracks):
        for o, (outline, hole) in enumerate(outlines):
            shared = _overlap(track.places, outline.points)
            if hole == track.hole and shared > 0.25:
                pairs.append((-shared, t, o))
    return sorted(pairs)


def _overlap(a: Array, b: Array) -> float:
    """Intersection over union of the boxes around two outlines."""
    low, high = np.maximum(a.min(axis=0), b.min(axis=0)), np.minimum(a.max(axis=0), b.max(axis=0))
    shared = float(np.prod(np.maximum(high - low, 0)))
    sizes = [float(np.prod(p.max(axis=0) - p.min(axis=0))) for p in (a, b)]
    return shared / max(sum(sizes) - shared, 1e-9)


def _diagonal(points: Array) -> float:
    return float(np.hypot(*(points.max(axis=0) - points.min(axis=0))))


def match(places: Array, outline: Outline) -> Array:
    """[M] ascending: how far along `outline` each of the places [M, 2] of the frame before has come."""
    count = len(places)
    rows = np.unique(np.linspace(0, count, min(count, _ROWS), endpoint=False).astype(np.int64))
    sparse = places[rows]
    columns = _FINE * len(rows)
    target = outline.at(outline.evenly(columns))
    shift = target.mean(axis=0) - sparse.mean(axis=0)
    for _ in range(2):
        start, offset = _warp(sparse + shift, target)
        shift = np.median(target[(start + np.arange(len(rows)) * _FINE + offset) % columns] - sparse, axis=0)
    # Even spacing is the rows' own: where they began, at equal distances.
    smooth = _circular_mean(offset.astype(np.float64), 2.0)
    smooth += _RELAX * (smooth.mean() - smooth)
    dense = np.interp(np.arange(count), np.append(rows, count), np.append(smooth, smooth[0]))
    ways: Array = (start + dense) * (outline.length / columns) + np.arange(count) * (outline.length / count)
    return np.maximum.accumulate(ways)


def _directions(points: Array) -> Array:
    along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    return along / np.maximum(np.hypot(*along.T), 1e-9)[:, None]


def _warp(rows: Array, target: Array) -> tuple[int, _Indices]:
    """Where the first row lies on the target, and by how many columns each row is ahead of even steps from there."""
    count, columns = len(rows), len(target)
    reach = _diagonal(rows) / 12 + 2
    row_way, target_way = _directions(rows), _directions(target)

    def cost(row: _Indices, column: _Indices) -> Array:
        far = ((rows[row] - target[column]) ** 2).sum(axis=-1) / reach**2
        return np.asarray(far + 1 - (row_way[row] * target_way[column]).sum(axis=-1))

    steps = np.arange(count) * _FINE
    starts = np.arange(0, columns, _FINE)
    whole = cost(np.arange(count)[None, :], (starts[:, None] + steps) % columns).sum(axis=1)
    start = int(starts[whole.argmin()])
    band = max(columns // 6, 2 * _FINE)
    offsets = np.arange(-band, band + 1)
    # A step goes 0.._FASTEST * _FINE columns on; even ones go _FINE. In a window the fastest comes first.
    ahead = np.arange(_FASTEST * _FINE, -1, -1) - _FINE
    room = np.full(len(offsets) + len(ahead) - 1, np.inf)
    total = room[ahead[0] : ahead[0] + len(offsets)]
    total[band] = 0.0
    windows = sliding_window_view(room, len(ahead))
    price = _STIFF * (ahead / _FINE) ** 2
    steps = np.arange(1, count + 1)
    costs = cost((steps % count)[:, None], (start + steps[:, None] * _FINE + offsets) % columns)
    chosen = np.zeros((count, len(offsets)), np.int64)
    for i in range(count):
        before = windows + price
        best = before.argmin(axis=1)
        chosen[i] = ahead[best]
        total[:] = before[np.arange(len(offsets)), best] + costs[i]
    offset = np.zeros(count, np.int64)
    at = 0  # the way closes where it began
    for i in range(count - 1, 0, -1):
        at -= int(chosen[i, at + band])
        offset[i] = at
    return start, offset


def _slid(ways: Array, slide: Array, length: float) -> Array:
    """Places along an outline moved by `slide`, less of it around where they would crowd or gape more than before."""
    even = length / len(ways)
    gaps = np.diff(np.append(ways, ways[0] + length))
    least, most = np.minimum(gaps, _NEAR * even), np.maximum(gaps, _FAR * even)
    for _ in range(4):
        wanted = gaps + np.diff(np.append(slide, slide[0]))
        wrong = (wanted < least) | (wanted > most)
        if not wrong.any():
            return np.asarray(ways + slide)
        slide = slide * np.clip(1 - 4 * _TOGETHER * _circular_mean(wrong.astype(np.float64), 2 * _TOGETHER), 0, 1)
    return ways


def _circular_mean(values: Array, sigma: float) -> Array:
    frequency = np.fft.rfftfreq(len(values))
    return np.fft.irfft(np.fft.rfft(values) * np.exp(-2 * (np.pi * frequency * sigma) ** 2), len(values))
