"""Mattes and plate pixels as arrays on a window: cut, clamped, multiplied, made into whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rotomem.types import PlateFrame, Window

Alpha = NDArray[np.float32]
"""[H, W] coverage 0..1."""


def overlap(inner: Window, outer: Window) -> tuple[slice, slice, tuple[slice, slice]]:
    """Rows and columns of `outer` that both hold, and the same pixels in an array of `inner`."""
    both = inner.intersect(outer)
    if both.empty:
        nothing = slice(0, 0)
        return nothing, nothing, (nothing, nothing)
    rows, cols = both.slices_in(outer)
    return rows, cols, both.slices_in(inner)


def on_window(plane: Alpha | None, canvas: Window, window: Window) -> Alpha:
    """The part of a canvas-sized matte that lies in `window`, clamped to 0..1; zeros where there is none."""
    if plane is None:
        return np.zeros((window.height, window.width), np.float32)
    if window == canvas:
        cut: Alpha = np.asarray(plane, np.float32)
    else:
        cut = np.zeros((window.height, window.width), np.float32)
        rows, cols, inner = overlap(canvas, window)
        cut[rows, cols] = plane[inner]
    if cut.size and not (cut.min() >= 0 and cut.max() <= 1):  # also where there is a NaN
        cut = np.clip(np.nan_to_num(cut, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return cut


def union(planes: Sequence[Alpha]) -> Alpha:
    """min(1, sum) of mattes, [H, W]."""
    total = planes[0].copy()
    for plane in planes[1:]:
        total += plane
    return np.minimum(total, 1, out=total)


def plate_on(frame: PlateFrame, window: Window) -> NDArray[np.generic]:
    """The plate's RGB on `window`, [h, w, 3] in its own type; zeros where it has no pixels."""
    if window == frame.data_window:
        return frame.rgb
    rgb = np.zeros((window.height, window.width, 3), frame.rgb.dtype)
    rows, cols, inner = overlap(frame.data_window, window)
    rgb[rows, cols] = frame.rgb[inner]
    return rgb


def premultiplied(rgb: NDArray[Any], alpha: Alpha) -> NDArray[np.float32]:
    """RGB in `unit` values times the matte, [h, w, 3]."""
    with np.errstate(invalid="ignore", over="ignore"):
        cut = unit(rgb) * alpha[..., None]
    # A NaN or infinity would stay one under the faintest edge; where the matte is full it is the plate's own.
    cut[~np.isfinite(rgb) & (alpha[..., None] < 1)] = 0
    return cut


def unit(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels as float32; integers as v / max, which is exactly invertible."""
    values = rgb.astype(np.float32)
    if rgb.dtype.kind != "f":
        values /= np.float32(np.iinfo(rgb.dtype).max)
    return values


def to_integer(plane: NDArray[np.float32], kind: Any) -> NDArray[Any]:
    """0..1 as whole numbers 0..max of an integer type, rounded."""
    top = np.iinfo(kind).max
    return np.rint(plane * np.float64(top)).astype(kind)
