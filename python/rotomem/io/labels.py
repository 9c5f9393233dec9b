"""Which levels of a mask picture are objects, and which are only the soft edges between them.

A mask drawn with anti-aliasing, or resized with a filter, holds levels that nobody drew: at the border of 0 and 200
there are 50 and 150. Taken as labels they would become objects of a few pixels. What tells them apart:

- A drawn level has an inside: much of it lies in 3x3 blocks of that level alone ("flat").
- An edge level lies, nearly always, within two pixels of a lower and of a higher flat level, and its value between
  theirs (for colours: inside the box that theirs span).

A thin or tiny object has no inside either, but its value is not between its neighbours', so it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAT = 0.2
"""Share of a level's pixels that lie in 3x3 blocks of it, from which on the level counts as drawn."""

_REACH = 2  # pixels from an edge pixel to the flat levels on both sides
_FAR = 8  # the same in a picture that was enlarged with a filter, whose edges are wide
_RINGING = 0.15  # sharpening filters overshoot by up to this share of the step; only trusted on steps of 32 and more
_NOISE = 0.04  # of the picture's range: how far ringing and JPEG noise stray from a drawn level
_MOST_DRAWN = 512
_BLOCK = 64  # pixels of the block that JPEG transforms as one
_LEAST_DRAWN = (
    0.4  # of a picture, exactly flat: label maps as JPEG 50..98 have 0.68 and more, photographs 0.18 at most
)
_CHUNK = 1 << 17


@dataclass(frozen=True)
class Levels:
    """A picture as levels.

    index     [H, W] int32, which of `values` each pixel has
    values    [n, C] float64, ascending (for C = 1)
    counts    [n] pixels
    flat      [n] pixels that lie in a 3x3 block of their own level
    """

    index: NDArray[np.int32]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    flat: NDArray[np.int64]

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """[n] levels with an inside."""
        result: NDArray[np.bool_] = self.flat >= np.maximum(FLAT * self.counts, 1)
        return result


def find_levels(values: NDArray[np.generic]) -> Levels:
    """The distinct values of an integer picture [H, W], or colours of [H, W, 3] with at most 16 bits a channel."""
    if values.ndim == 2:
        found, index = _number(values)
        return levels_of(index, found[:, None].astype(np.float64))
    bits = 8 * values.dtype.itemsize
    kind = np.uint32 if bits == 8 else np.uint64
    packed: NDArray[Any] = values[..., 0].astype(kind)
    for c in (1, 2):
        packed <<= kind(bits)
        packed |= values[..., c].astype(kind)
    found, index = _number(packed)
    mask = (1 << bits) - 1
    colours = np.stack([found >> kind(2 * bits), found >> kind(bits) & kind(mask), found & kind(mask)], axis=-1)
    return levels_of(index, colours.astype(np.float64))


def _number(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The distinct values, ascending, and which of them each pixel is."""
    top = int(values.max())
    if top < 1 << 24:
        # A table of what is there: a 4K picture in 0.1 s, where sorting it takes seconds.
        place = np.zeros(top + 1, np.int32)
        place[values.reshape(-1)] = 1
        found = np.flatnonzero(place).astype(values.dtype)
        place[found] = np.arange(found.size)
        return found, place[values]
    found = np.unique(values)
    return found, np.searchsorted(found, values).astype(np.int32)


def levels_of(index: NDArray[np.generic], values: NDArray[np.float64]) -> Levels:
    """Levels of a picture that is already an index [H, W] into `values` [n, C]."""
    own: NDArray[np.int32] = np.ascontiguousarray(index, np.int32)
    n = len(values)
    flat = np.bincount(own[flat_pixels(own)], minlength=n)
    return Levels(own, values, np.bincount(own.reshape(-1), minlength=n), flat)


def flat_pixels(index: NDArray[np.int32]) -> NDArray[np.bool_]:
    """[H, W] pixels that lie in some 3x3 block of one level; the picture's border counts as going on."""
    # A block is three rows of three equals each, whose middles are equal too.
    row = _like_both(index, 1)
    middle = row & _like_both(index, 0)
    middle[1:] &= row[:-1]
    middle[:-1] &= row[1:]
    return _spread(_spread(middle, 0), 1)


def _like_both(index: NDArray[np.int32], axis: int) -> NDArray[np.bool_]:
    """[H, W] pixels equal to both neighbours along an axis."""
    result = np.ones(index.shape, np.bool_)
    head, tail = _halves(axis)
    same = index[head] == index[tail]
    result[head] &= same
    result[tail] &= same
    return result


def _spread(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    result = mask.copy()
    head, tail = _halves(axis)
    result[head] |= mask[tail]
    result[tail] |= mask[head]
    return result


def _halves(axis: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    every, first, last = slice(None), slice(None, -1), slice(1, None)
    return ((first, every), (last, every)) if axis == 0 else ((every, first), (every, last))


def is_soft_matte(levels: Levels, full: float) -> bool:
    """Whether a grey picture is one matte with soft edges, its levels being coverage.

    full   the value of full coverage (255, 65535)

    It is where black and white make up at least half of the picture, and what is between is either few levels that
    occur at edges only, or many levels of which hardly any has an inside.
    """
    value = levels.values[:, 0]
    black, white = value <= 0.03 * full, value >= 0.97 * full
    between = ~(black | white)
    if not white.any():
        return False
    if not between.any():
        return bool((black & (value > 0) & levels.drawn).sum() == 0)
    total, count = levels.counts.sum(), levels.counts[between]
    if (total - count.sum()) < 0.5 * total:
        return False
    if count[levels.drawn[between]].sum() >= 0.3 * count.sum():
        return False
    if between.sum() >= 16:
        return True
    folded = fold_edges(levels)
    return not np.isin(np.unique(folded.index), np.flatnonzero(between)).any()


def fold_edges(levels: Levels) -> Levels:
    """Give every pixel of an edge level to the neighbouring drawn level that is nearest in value.

    Levels that no pixel is left of keep their place in `values`, with a count of 0. Ties go to the earlier level in
    `values` (the darker one, the background before an object).
    """
    drawn = levels.drawn
    n = len(levels.values)
    faint = np.flatnonzero(~drawn & (levels.counts > 0))
    pixels = int(levels.counts[faint].sum())
    # With nothing drawn, or mostly what is not, this is a photograph: no label hides in it.
    if faint.size == 0 or not drawn.any() or pixels > 0.5 * levels.index.size or drawn.sum() > _MOST_DRAWN:
        return levels
    rows, cols = np.nonzero(~drawn[levels.index])
    own = levels.index[rows, cols]
    between = np.zeros(rows.size, np.bool_)
    for reach in (_REACH, _FAR) if faint.size >= 8 else (_REACH,):
        open_ = np.flatnonzero(~between)
        for part in _chunks(open_.size):
            which = open_[part]
            near = _neighbours(levels.index, rows[which], cols[which], reach)
            between[which] = _between(levels.values, own[which], near, (near >= 0) & drawn[near])
    spread = float(np.ptp(levels.values[drawn]))
    if faint.size >= 8 and spread >= 32:
        # Ringing and JPEG noise: nearly a drawn level, though not between two.
        away = np.full(n, np.inf)
        for value in levels.values[drawn]:
            away = np.minimum(away, np.abs(levels.values - value).max(axis=1))
        between |= (away <= _NOISE * spread)[own]
    share = np.bincount(own, weights=between, minlength=n) / np.maximum(levels.counts, 1)
    if faint.size >= 8 and between.mean() >= 0.7:
        # Surely anti-aliased. Tips of hair are not between two drawn levels, their value is an edge's all the same;
        # what stays is a level of its own, seen often and mostly elsewhere.
        keep = (levels.counts >= 20) & (share < 0.5)
    else:
        keep = share < 0.9
    edge = ~drawn & ~keep
    if not edge.any():
        return levels
    index = levels.index.copy()
    loose = edge[own]
    _give_away(index, levels.values, rows[loose], cols[loose], edge)
    _give_strays_away(index, levels, drawn)
    return levels_of(index, levels.values)


def fold_noise(levels: Levels, near: float) -> Levels:
    """Give every pixel of a picture that was compressed with loss (JPEG) to one of the levels that were drawn.

    near   how far, in any channel, compression moves a level; two drawn levels are farther apart

    A drawn level fills at least the 8x8 block that JPEG works in; of several near each other the commonest was drawn,
    the others are noise, even those with an inside of their own (a block may come out in one flat wrong colour).
    Returned as it is where the insides of drawn levels make up less than `_LEAST_DRAWN`: a photograph.
    """
    drawn: list[int] = []
    for i in np.argsort(-levels.counts, kind="stable"):
        if levels.counts[i] < _BLOCK or len(drawn) > _MOST_DRAWN:
            break
        apart = np.abs(levels.values[drawn] - levels.values[i]).max(axis=1)
        if levels.flat[i] >= _BLOCK and (apart > near).all():
            drawn.append(int(i))
    if len(drawn) > _MOST_DRAWN or levels.flat[drawn].sum() < _LEAST_DRAWN * levels.index.size:
        return levels
    best, away = np.zeros(len(levels.values), np.int32), np.full(len(levels.values), np.inf)
    for i in drawn:
        distance = np.abs(levels.values - levels.values[i]).max(axis=1)
        best[distance < away] = i
        away = np.minimum(away, distance)
    noise = np.where(away <= near, best, np.arange(len(best), dtype=np.int32))
    folded = fold_edges(levels_of(noise[levels.index], levels.values))
    return levels_of(best[folded.index], levels.values)


def _give_away(
    index: NDArray[np.int32],
    values: NDArray[np.float64],
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    edge: NDArray[np.bool_],
) -> None:
    """Replace the edge pixels (rows, cols) in place: where both sides of the edge are near, else from afar, else
    from the drawn levels inwards."""
    own = index[rows, cols]
    left = np.arange(rows.size)
    for turn, reach in enumerate((_REACH, _FAR, *[_REACH] * 32)):
        if left.size == 0:
            return
        taken = np.full(left.size, -1, np.int32)
        for part in _chunks(left.size):
            which = left[part]
            near = _neighbours(index, rows[which], cols[which], reach)
            counted = (near >= 0) & ~edge[near]
            taken[part] = _nearest(values, own[which], near, counted)
            if turn == 0:
                taken[part] = np.where(_between(values, own[which], near, counted), taken[part], -1)
        done = taken >= 0
        index[rows[left[done]], cols[left[done]]] = taken[done]
        left = left[~done]
    if left.size:  # a soft blob with nothing drawn near it: the background's
        index[rows[left], cols[left]] = int(np.argmin(np.where(edge, np.inf, values.sum(axis=1))))


def _give_strays_away(index: NDArray[np.int32], levels: Levels, drawn: NDArray[np.bool_]) -> None:
    """Edge pixels whose value is by accident that of another object: between 0 and 200 there is a 100."""
    inside = flat_pixels(levels.index)
    rows, cols = np.nonzero(drawn[levels.index] & ~inside)
    for part in _chunks(rows.size):
        y, x = rows[part], cols[part]
        own = levels.index[y, x]
        near = _neighbours(levels.index, y, x)
        firm = _neighbours(np.where(inside, levels.index, -1).astype(np.int32), y, x)
        at_home = ((near == own[:, None]) & (firm >= 0)).any(axis=1)
        stray = ~at_home & _between(levels.values, own, firm, firm >= 0)
        if stray.any():
            index[y[stray], x[stray]] = _nearest(levels.values, own[stray], firm[stray], firm[stray] >= 0)


def _chunks(n: int) -> list[slice]:
    return [slice(i, i + _CHUNK) for i in range(0, n, _CHUNK)]


def _neighbours(
    index: NDArray[np.int32], rows: NDArray[np.intp], cols: NDArray[np.intp], reach: int = _REACH
) -> NDArray[np.int32]:
    """[k, 81 or less] levels around each pixel, -1 beyond the picture; a far reach looks at every other pixel."""
    height, width = index.shape
    step = np.arange(-reach, reach + 1, 1 if reach <= 2 else 2)
    y = (rows[:, None] + np.repeat(step, step.size)[None]).astype(np.int64)
    x = (cols[:, None] + np.tile(step, step.size)[None]).astype(np.int64)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    found = index[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return np.where(inside, found, -1).astype(np.int32)


def _between(
    values: NDArray[np.float64], own: NDArray[np.int32], near: NDArray[np.int32], counted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """[k] whether a pixel's value lies between the counted neighbours', in every channel."""
    result = counted.any(axis=1)
    apart = np.zeros(len(own), np.bool_)
    for c in range(values.shape[1]):
        seen = values[near, c]
        low = np.where(counted, seen, np.inf).min(axis=1)
        high = np.where(counted, seen, -np.inf).max(axis=1)
        with np.errstate(invalid="ignore"):
            slack = np.where(high - low >= 32, _RINGING * (high - low), 0)
            value = values[own, c]
            result &= (value >= low - slack) & (value <= high + slack)
            apart |= high > low
    return result & apart


def _nearest(
    values: NDArray[np.float64], own: NDArray[np.int32], near: NDArray[np.int32], counted: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """[k] the counted neighbour level nearest in value, the lowest of equals; -1 where none is counted."""
    distance = np.square(values[near] - values[own][:, None, :]).sum(axis=2)
    distance = np.where(counted, distance, np.inf)
    best = distance.min(axis=1)
    level = np.where(distance == best[:, None], near, np.iinfo(np.int32).max)
    return np.where(np.isfinite(best), level.min(axis=1), -1).astype(np.int32)
