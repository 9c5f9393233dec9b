"""A matte over time to shapes: outlines, followed from frame to frame, fitted with few points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import UsageError
from rotomem.splines.contour import outlines
from rotomem.splines.fit import fit, reduce_keys
from rotomem.splines.follow import Follower, Track
from rotomem.splines.types import Curve, Shape, signed_area

_BRIEF = 3  # frames: an outline that is there for fewer must be larger to count
_LARGE = 10  # times the least area
_PART = 0.1  # of an object: what is as large is never left out as small
_MOST_SMOOTH = 2.0  # pixels
_CLOSE = 0.3, 0.02  # a small outline is fitted to this many pixels, or this share of its size, if that is closer


@dataclass(frozen=True)
class TraceOptions:
    """How close and how few.

    tolerance       pixels that a curve may be off the matte's outline, at every place on nine frames of ten; small
                    outlines are fitted closer
    key_tolerance   pixels that an outline may be off between two key frames; 0: every frame is a key
    least_area      square pixels: smaller islands and holes are left out, but for a tenth of the object and more;
                    those there for one or two frames must be ten times as large
    """

    tolerance: float = 1.0
    key_tolerance: float = 0.0
    least_area: float = 32.0

    def __post_init__(self) -> None:
        if not (0.05 <= self.tolerance <= 100 and 0 <= self.key_tolerance <= 100 and self.least_area >= 0):
            raise UsageError(
                f"tolerance {self.tolerance:g}, key tolerance {self.key_tolerance:g}, least area {self.least_area:g}",
                remedy="tolerance is 0.05..100 pixels, that of keys 0..100, the area 0 or more",
            )


class Tracer:
    """The shapes of one object, from its matte frame by frame."""

    def __init__(self, name: str, options: TraceOptions | None = None) -> None:
        self.name = name
        self.options = options or TraceOptions()
        self._follower = Follower(smooth=min(self.options.tolerance, _MOST_SMOOTH))
        self._parts: dict[int, float] = {}  # frame -> square pixels that are no small part of the object
        self._made: list[tuple[float, bool, dict[int, Curve]]] = []

    def add(self, frame: int, alpha: NDArray[np.floating], origin: tuple[float, float] = (0, 0)) -> None:
        """Take the matte [h, w] of the next frame; `origin`: where its upper left corner lies. Frames ascend."""
        self._parts[frame] = _PART * np.count_nonzero(alpha >= 0.5)
        least = min(self.options.least_area, self._parts[frame])
        polygons = [p + origin for p in outlines(alpha, least_area=least)]
        self._fit(self._follower.add(frame, polygons))

    def shapes(self) -> tuple[Shape, ...]:
        """What was traced, from the lowest up: a hole is smaller than what it is in, so the larger come first."""
        self._fit(self._follower.finish())
        shapes = []
        for number, (_, hole, keys) in enumerate(sorted(self._made, key=lambda m: (-m[0], min(m[2]))), 1):
            name = f"{self.name}_{'hole' if hole else 'shape'}{number}"
            shapes.append(Shape(name, keys, hole, (min(keys), max(keys))))
        return tuple(shapes)

    def _fit(self, tracks: list[Track]) -> None:
        for track in tracks:
            area = max(abs(signed_area(o.points)) for o in track.outlines)
            enough = min(_LARGE * self.options.least_area, self._parts[track.first])
            if len(track) >= _BRIEF or area >= enough:
                curves = fit(track, min(self.options.tolerance, max(_CLOSE[0], _CLOSE[1] * area**0.5)))
                keys = reduce_keys(dict(enumerate(curves, track.first)), self.options.key_tolerance)
                self._made.append((area, track.hole, keys))
