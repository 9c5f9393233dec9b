"""Values that every part of rotomem passes around: frozen, NumPy only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import UsageError

ObjectId: TypeAlias = int
"""The artist's number of an object, 1..; never reused within a shot (0 is the background)."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, half-open: x0 <= x < x1, y0 <= y < y1. Origin may be negative (EXR data windows)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return max(self.x1 - self.x0, 0)

    @property
    def height(self) -> int:
        return max(self.y1 - self.y0, 0)

    @property
    def empty(self) -> bool:
        return self.width == 0 or self.height == 0

    def union(self, other: Window) -> Window:
        """The smallest window that holds both; an empty window adds nothing."""
        if self.empty:
            return other
        if other.empty:
            return self
        return Window(min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1))

    def intersect(self, other: Window) -> Window:
        """What both hold; may be empty."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        return Window(x0, y0, max(min(self.x1, other.x1), x0), max(min(self.y1, other.y1), y0))

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Rows and columns of this window in an array that covers `outer`; this must lie inside `outer`."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )

    @classmethod
    def parse(cls, text: str) -> Window:
        """From the spelling of `str`: WIDTHxHEIGHT+X+Y. Raises UsageError for any other, or one without pixels."""
        found = re.fullmatch(r"(\d+)x(\d+)([+-]\d+)([+-]\d+)", text.strip())
        width, height, x, y = map(int, found.groups()) if found else (0, 0, 0, 0)
        if not width or not height:
            raise UsageError(f"{text!r} is no window", remedy="give WIDTHxHEIGHT+X+Y in pixels of the plate")
        return cls(x, y, x + width, y + height)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}{self.x0:+d}{self.y0:+d}"


@dataclass(frozen=True)
class PlateFrame:
    """One frame of a plate, as it lies on disk: pixels of its data window in the plate's own encoding.

    rgb        [h, w, 3] float16, float32, uint8 or uint16 (integers are 0..max, not yet normalised)
    alpha      [h, w] same type, or None where the plate has none
    metadata   attributes that a matte of this frame should carry on (timecode, lens, owner, ...)
    source_frame   the number on disk that was read; differs from `frame` where a missing frame was held;
                   None where it was replaced by black
    """

    frame: int
    rgb: NDArray[np.generic]
    alpha: NDArray[np.generic] | None
    data_window: Window
    display_window: Window
    pixel_aspect: float
    path: Path | None
    source_frame: int | None
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyMask:
    """What the artist drew on one frame.

    alpha      [O, H, W] float32 coverage 0..1 on the plate's canvas, one row an id of `objects`, in that order
    objects    the ids this key speaks for; a row of zeros says that the object is absent on this frame
    """

    frame: int
    objects: tuple[ObjectId, ...]
    alpha: NDArray[np.float32]
    paths: tuple[str, ...] = ()
