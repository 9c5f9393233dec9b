"""Closed cubic Bezier curves, keyed over time, and the objects made of them.

Coordinates are those of the plate's display window: x to the right, y down, (0, 0) the outer corner of its first
pixel, so that the centre of that pixel is (0.5, 0.5); units are plate pixels, squeezed where the plate is anamorphic.
What the hosts count differently is converted where their files are read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import InputError

Array = NDArray[np.float64]


_LONGEST = 10.0  # times that a handle grows with the feather


class SplineError(InputError):
    """Splines that cannot be read, or that say what rotomem cannot draw."""


@dataclass(frozen=True)
class Curve:
    """One closed curve on one frame.

    points    [N, 3, 2] float64, N >= 2: of every point the handle that comes in, the point, the handle that goes out,
              all absolute x, y
    feather   [N] float64 pixels >= 0: how far from each point, away from the inside, coverage falls to 0

    Between two points the curve is the cubic of point, handle out, next handle in, next point; the last point is
    followed by the first. The feather's outer edge has every point moved along its outward normal by its feather, and
    handles as much longer as its pieces are from end to end (W. Tiller and E. Hanson, 1984).
    """

    points: Array
    feather: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        points = np.array(self.points, np.float64)
        feather = np.array(self.feather, np.float64)
        if points.ndim != 3 or points.shape[1:] != (3, 2) or len(points) < 2:
            raise SplineError(f"a curve has points of shape {points.shape}, expected [N, 3, 2] with N >= 2")
        if feather.size == 0:
            feather = np.zeros(len(points))
        if feather.shape != (len(points),):
            raise SplineError(f"a curve of {len(points)} points has {feather.size} feather widths")
        if not (np.isfinite(points).all() and np.isfinite(feather).all() and (feather >= 0).all()):
            raise SplineError("a curve has coordinates that are not finite, or a negative feather")
        points.flags.writeable = feather.flags.writeable = False
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "feather", feather)

    def __len__(self) -> int:
        return len(self.points)

    def normals(self) -> Array:
        """[N, 2] unit vectors at the points, away from the inside of the curve (its larger winding)."""
        before, after = _directions(self.points)
        along = before + after
        length = np.hypot(*along.T)[:, None]
        # At a cusp the two directions cancel: either will do.
        along = np.where(length > 1e-9, along / np.maximum(length, 1e-9), after)
        outward = np.stack([along[:, 1], -along[:, 0]], axis=1)
        return outward if signed_area(flatten(self.points)) > 0 else -outward

    def outer(self, share: float = 1.0) -> Array:
        """[N, 3, 2] points of the feather's outer edge; `share` 0..1 of the way to it."""
        points = self.points[:, 1]
        moved = points + share * self.feather[:, None] * self.normals()
        chord = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
        longer = np.hypot(*(np.roll(moved, -1, axis=0) - moved).T) / np.maximum(chord, 1e-9)
        longer = np.where(chord > 1e-6, np.clip(longer, 0, _LONGEST), 1.0)[:, None]
        into = moved + np.roll(longer, 1, axis=0) * (self.points[:, 0] - points)
        return np.stack([into, moved, moved + longer * (self.points[:, 2] - points)], axis=1)


def _directions(points: Array) -> tuple[Array, Array]:
    """Unit vectors [N, 2] with which a curve reaches each of its points and leaves it."""
    following, previous = np.roll(points, -1, axis=0), np.roll(points, 1, axis=0)
    # A handle may lie on its point; then the next control point on that side says where the curve goes.
    after = _first_far(points[:, 1], points[:, 2], following[:, 0], following[:, 1])
    before = -_first_far(points[:, 1], points[:, 0], previous[:, 2], previous[:, 1])
    return before, after


def _first_far(start: Array, *ends: Array) -> Array:
    result = np.zeros_like(start)
    for end in ends:
        step = end - start
        length = np.hypot(*step.T)[:, None]
        missing = ~result.any(axis=1, keepdims=True)
        result = np.where(missing & (length > 1e-6), step / np.maximum(length, 1e-6), result)
    return result


@dataclass(frozen=True)
class Shape:
    """One curve over time.

    keys       frame -> Curve, at least one, all with the same number of points; ascending
    subtract   True: it takes away from what lies below (a hole)
    span       first and last frame it exists on, both included; None: every frame
    """

    name: str
    keys: Mapping[int, Curve]
    subtract: bool = False
    span: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.keys:
            raise SplineError("a shape has no key", shape=self.name)
        counts = {len(c) for c in self.keys.values()}
        if len(counts) > 1:
            raise SplineError(
                f"the keys of a shape have {', '.join(map(str, sorted(counts)))} points, not one number",
                shape=self.name,
            )
        object.__setattr__(self, "keys", dict(sorted(self.keys.items())))

    def at(self, frame: int) -> Curve | None:
        """The curve on a frame: linear between keys per control point, held before the first and after the last.

        None where the shape does not exist.
        """
        if self.span is not None and not self.span[0] <= frame <= self.span[1]:
            return None
        if frame in self.keys:
            return self.keys[frame]
        earlier = [f for f in self.keys if f < frame]
        later = [f for f in self.keys if f > frame]
        if not earlier or not later:
            return self.keys[earlier[-1] if earlier else later[0]]
        a, b = earlier[-1], later[0]
        share = (frame - a) / (b - a)
        left, right = self.keys[a], self.keys[b]
        return Curve(
            (1 - share) * left.points + share * right.points, (1 - share) * left.feather + share * right.feather
        )


@dataclass(frozen=True)
class Splines:
    """The objects of a shot as curves.

    size           width, height of the display window in pixels
    objects        name -> its shapes, from the lowest up: each adds to, or takes from, what the ones before made
    pixel_aspect   width of a pixel by its height
    notes          what a reader left out or had to take for something
    """

    size: tuple[int, int]
    objects: Mapping[str, tuple[Shape, ...]]
    pixel_aspect: float = 1.0
    notes: tuple[str, ...] = ()

    def key_frames(self, name: str) -> tuple[int, ...]:
        """Frames on which a shape of the object has a key and is there, ascending."""
        found: set[int] = set()
        for shape in self.objects[name]:
            first, last = shape.span or (min(shape.keys), max(shape.keys))
            found.update(f for f in shape.keys if first <= f <= last)
        return tuple(sorted(found))

    def shifted(self, frames: int) -> Splines:
        """The same, that many frames later."""

        def later(shape: Shape) -> Shape:
            span = shape.span and (shape.span[0] + frames, shape.span[1] + frames)
            return replace(shape, keys={f + frames: curve for f, curve in shape.keys.items()}, span=span)

        return replace(self, objects={name: tuple(map(later, shapes)) for name, shapes in self.objects.items()})


def flatten(points: Array, tolerance: float = 0.002) -> Array:
    """[M, 2] a polygon within `tolerance` pixels of a closed curve [N, 3, 2]; its last point joins the first."""
    p0, p1 = points[:, 1], points[:, 2]
    p2, p3 = np.roll(points[:, 0], -1, axis=0), np.roll(points[:, 1], -1, axis=0)
    # A cubic leaves its chord by at most 1/8 of its second derivative (6 second differences), and n pieces by 1/n^2.
    bend = np.maximum(np.hypot(*(p0 - 2 * p1 + p2).T), np.hypot(*(p1 - 2 * p2 + p3).T))
    pieces = np.clip(np.ceil(np.sqrt(0.75 * bend / tolerance)), 1, 1000).astype(np.int64)
    segment = np.repeat(np.arange(len(points)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    t = ((np.arange(len(segment)) - first) / pieces[segment])[:, None]
    s = 1 - t
    p0, p1, p2, p3 = p0[segment], p1[segment], p2[segment], p3[segment]
    polygon: Array = s**3 * p0 + 3 * s * s * t * p1 + 3 * s * t * t * p2 + t**3 * p3
    return polygon


def signed_area(polygon: Array) -> float:
    """Area of a polygon [M, 2], positive where it runs clockwise as seen on the screen (y down)."""
    x, y = polygon.T
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
