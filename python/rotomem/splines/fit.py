"""Few Bezier points for an outline over time: the same points on every frame, within a tolerance on nearly all.

Each piece between two points is fitted as P. J. Schneider has it ("An algorithm for automatically fitting digitized
curves", Graphics Gems, 1990): directions at its ends from the outline, lengths of the two handles by least squares,
places on the curve made better by Newton's method. Points are added where the curves are farthest off, and taken
away again where they are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rotomem.splines.follow import Track
from rotomem.splines.types import Array, Curve

_CORNER = np.cos(np.radians(50))  # a turn as sharp as this, on half of the frames, is a corner
_LEAST = 3  # places between two points
_ROUNDS = 3  # of better places on the curve
_MOST_FRAMES = 0.9


@dataclass(frozen=True)
class _Outlines:
    """All frames of a track. places, ahead, behind [F, M, 2]; turn [M] the median cosine; corner [M]."""

    places: Array
    ahead: Array
    behind: Array
    turn: Array
    corner: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return self.places.shape[1]

    @classmethod
    def of(cls, track: Track) -> _Outlines:
        places, ahead, behind = track.sampled(), track.sampled(ahead=1), track.sampled(ahead=-1)
        turn = np.median((_unit(ahead - places) * _unit(places - behind)).sum(axis=-1), axis=0)
        # A corner is the sharpest place around; argmin: of several that are as sharp the first.
        around = np.stack([np.roll(turn, s) for s in range(-_LEAST, _LEAST + 1)])
        return cls(places, ahead, behind, turn, (turn < _CORNER) & (around.argmin(axis=0) == _LEAST))


@dataclass(frozen=True)
class _Piece:
    """The cubic from place `first` to `first + span` on every frame: handles [F, 2], how far it is off, and where."""

    first: int
    span: int
    out: Array
    into: Array
    error: float
    worst: int


def fit(track: Track, tolerance: float) -> list[Curve]:
    """A curve for each frame of a track, all with the same points.

    tolerance   pixels that a curve may be off its outline, at every place on nine frames of ten
    """
    track.settle()
    outlines = _Outlines.of(track)
    pieces = _needed(outlines, tolerance)
    points = np.stack(
        [
            np.stack([before.into, outlines.places[:, piece.first], piece.out], axis=1)
            for before, piece in zip([pieces[-1], *pieces], pieces, strict=False)
        ],
        axis=1,
    )
    return [Curve(p) for p in points]


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.hypot(vectors[..., 0], vectors[..., 1]), 1e-9)[..., None]


def _needed(outlines: _Outlines, tolerance: float) -> list[_Piece]:
    """The pieces around the outline, from some place on."""
    count = outlines.count
    starts = [int(i) for i in np.flatnonzero(outlines.corner)]
    if len(starts) < 2:
        first = starts[0] if starts else int(outlines.turn.argmax())
        starts = sorted({first, (first + count // 2) % count})
    ends = starts[1:] + starts[:1]
    pieces = [_fit_piece(outlines, a, (b - a) % count or count) for a, b in zip(starts, ends, strict=True)]
    at = 0
    while at < len(pieces):
        piece = pieces[at]
        if piece.error <= tolerance or piece.span < 2 * _LEAST:
            at += 1
            continue
        cut = int(np.clip(piece.worst, _LEAST, piece.span - _LEAST))
        pieces[at : at + 1] = [
            _fit_piece(outlines, piece.first, cut),
            _fit_piece(outlines, (piece.first + cut) % count, piece.span - cut),
        ]
    return _without_idle(outlines, pieces, tolerance)


def _without_idle(outlines: _Outlines, pieces: list[_Piece], tolerance: float) -> list[_Piece]:
    """Join neighbours that one cubic does for, until there are none."""
    pieces = list(pieces)
    at = tried = 0
    while tried < len(pieces) and len(pieces) > 2:
        after = (at + 1) % len(pieces)
        one, other = pieces[at], pieces[after]
        joined = None
        if not outlines.corner[other.first]:
            joined = _fit_piece(outlines, one.first, one.span + other.span)
        if joined is not None and joined.error <= tolerance:
            pieces[at] = joined
            del pieces[after]
            at -= after < at
            tried = 0
        else:
            at, tried = after, tried + 1
    return pieces


def _fit_piece(outlines: _Outlines, first: int, span: int) -> _Piece:
    count = outlines.count
    last = (first + span) % count
    x = outlines.places[:, (first + np.arange(span + 1)) % count]
    start, end = x[:, 0], x[:, -1]
    leave = _end_way(outlines, first, forward=True)
    arrive = _end_way(outlines, last, forward=False)
    steps = np.hypot(*np.moveaxis(np.diff(x, axis=1), -1, 0))
    way = np.concatenate([np.zeros((len(x), 1)), np.cumsum(steps, axis=1)], axis=1)
    length = np.maximum(way[:, -1:], 1e-6)
    t = way / length
    for round_ in range(_ROUNDS):
        one, two = _handle_lengths(x, t, leave, arrive, length[:, 0])
        out, into = start + one[:, None] * leave, end + two[:, None] * arrive
        curve = _curve_at(start, out, into, end, t)
        if round_ < _ROUNDS - 1:
            t = _nearer(start, out, into, end, t, x - curve)
    miss = np.hypot(*np.moveaxis(x - curve, -1, 0))
    # At every place nine frames of ten are within the tolerance; the tenth may have a shape for which the point
    # that it wants would idle on all others.
    usual = np.quantile(miss, _MOST_FRAMES, axis=0)
    return _Piece(first, span, out, into, float(usual.max()), int(usual.argmax()))


def _end_way(outlines: _Outlines, at: int, *, forward: bool) -> Array:
    """[F, 2] unit vectors: the direction of the outline at a place, away from it; at a corner that of one side."""
    place, ahead, behind = outlines.places[:, at], outlines.ahead[:, at], outlines.behind[:, at]
    if outlines.corner[at]:
        return _unit(ahead - place if forward else behind - place)
    return _unit(ahead - behind if forward else behind - ahead)


def _handle_lengths(x: Array, t: Array, leave: Array, arrive: Array, length: Array) -> tuple[Array, Array]:
    """[F] each: Schneider's two lengths; a third of the way where the equations have no sensible answer."""
    s = 1 - t
    b0, b1, b2, b3 = s**3, 3 * s * s * t, 3 * s * t * t, t**3
    rest = x - (b0 + b1)[..., None] * x[:, :1] - (b2 + b3)[..., None] * x[:, -1:]
    cosine = (leave * arrive).sum(axis=1)
    c00, c11, c01 = (b1 * b1).sum(axis=1), (b2 * b2).sum(axis=1), (b1 * b2).sum(axis=1) * cosine
    x0 = (b1 * np.einsum("fsk,fk->fs", rest, leave)).sum(axis=1)
    x1 = (b2 * np.einsum("fsk,fk->fs", rest, arrive)).sum(axis=1)
    determinant = c00 * c11 - c01 * c01
    safe = np.where(np.abs(determinant) > 1e-9, determinant, 1.0)
    one, two = (x0 * c11 - x1 * c01) / safe, (c00 * x1 - c01 * x0) / safe
    good = (np.abs(determinant) > 1e-9) & (one > 1e-3 * length) & (two > 1e-3 * length)
    good &= (one < length) & (two < length)
    return np.where(good, one, length / 3), np.where(good, two, length / 3)


def _curve_at(p0: Array, p1: Array, p2: Array, p3: Array, t: Array) -> Array:
    """[F, S, 2] places on a cubic of each frame at t [F, S]."""
    t = t[..., None]
    s = 1 - t
    a, b, c, d = (p[:, None] for p in (p0, p1, p2, p3))
    return np.asarray(s**3 * a + 3 * s * s * t * b + 3 * s * t * t * c + t**3 * d)


def _nearer(p0: Array, p1: Array, p2: Array, p3: Array, t: Array, miss: Array) -> Array:
    """One step of Newton's method towards the place on the curve that is nearest to each sample."""
    u, s = t[..., None], 1 - t[..., None]
    a, b, c = (3 * (q - p)[:, None] for p, q in ((p0, p1), (p1, p2), (p2, p3)))
    speed = s * s * a + 2 * s * u * b + u * u * c
    bend = 2 * s * (b - a) + 2 * u * (c - b)
    slope = (speed * speed).sum(axis=-1) - (miss * bend).sum(axis=-1)
    step = (miss * speed).sum(axis=-1) / np.where(slope > 1e-9, slope, np.inf)
    better = np.clip(t + step, 0, 1)
    better[:, 0], better[:, -1] = 0, 1
    return np.maximum.accumulate(better, axis=1)


def reduce_keys(curves: Mapping[int, Curve], tolerance: float) -> dict[int, Curve]:
    """The curves of as few frames as keep the outline within `tolerance` pixels of every frame's own; 0: all.

    How far a curve between two keys is off is measured across the outline: what slides along it shows nowhere. As
    Douglas and Peucker (1973) thin a line: the frame that is farthest off becomes a key, then both sides.
    """
    frames = sorted(curves)
    if tolerance <= 0:
        return {f: curves[f] for f in frames}
    drawn = _along(np.stack([curves[f].points for f in frames]))
    across = _across(drawn)
    kept, parts = {0, len(frames) - 1}, [(0, len(frames) - 1)]
    while parts:
        a, b = parts.pop()
        if b - a < 2:
            continue
        share = (np.arange(a + 1, b) - a)[:, None, None] / (b - a)
        off = (1 - share) * drawn[a] + share * drawn[b] - drawn[a + 1 : b]
        miss = np.abs((off * across[a + 1 : b]).sum(axis=-1)).max(axis=1)
        if miss.max() > tolerance:
            cut = a + 1 + int(miss.argmax())
            kept.add(cut)
            parts += [(a, cut), (cut, b)]
    return {frames[i]: curves[frames[i]] for i in sorted(kept)}


def _along(values: Array) -> Array:
    """[F, 6 N, 2] six places a piece, evenly in its parameter, on closed curves [F, N, 3, 2]."""
    t = (np.arange(6) / 6)[:, None]
    s = 1 - t
    following = np.roll(values, -1, axis=1)
    p0, p1, p2, p3 = (
        p[:, :, None] for p in (values[:, :, 1], values[:, :, 2], following[:, :, 0], following[:, :, 1])
    )
    places: Array = s**3 * p0 + 3 * s * s * t * p1 + 3 * s * t * t * p2 + t**3 * p3
    return places.reshape(len(values), -1, 2)


def _across(places: Array) -> Array:
    """Unit vectors at right angles to the outline at each of its places [F, M, 2]."""
    along = _unit(np.roll(places, -1, axis=1) - np.roll(places, 1, axis=1))
    return np.stack([-along[..., 1], along[..., 0]], axis=-1)
