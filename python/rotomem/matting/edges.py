"""What an artist does to a matte's edge: choke, feather, take specks away, close holes.

Lengths are in plate pixels, counted along a column; where pixels are wider than high, fewer of them make the same
length along a row. Fractions of a pixel work.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rotomem.matting.boxes import edge_boxes
from rotomem.matting.islands import Islands

Matte = NDArray[np.float32]

_DIRECTIONS = 16
_AT_ONCE = 8
_SEEN = 0.1  # coverage from which a speck is seen


def choke(alpha: Matte, pixels: float, pixel_aspect: float = 1.0) -> Matte:
    """The matte with its edge moved inwards; outwards where `pixels` is negative. [H, W] 0..1.

    Soft edges keep their profile: every level of alpha moves alike (erosion by a disc). Beyond the picture everything
    goes on as at its border, so that an object which leaves it is not choked there.
    """
    if not pixels:
        return alpha
    steps = math.ceil(abs(pixels))
    reach = abs(pixels) / steps  # discs add up: small ones one after the other
    least = np.minimum if pixels > 0 else np.maximum
    while steps:
        now = min(steps, _AT_ONCE)  # more would widen the boxes until they hold little but each other
        out = alpha.copy()
        for inner, outer in edge_boxes(alpha, math.ceil(now * max(1, 1 / pixel_aspect)) + now + 1):
            part = alpha[outer]
            for _ in range(now):
                part = _moved(part, reach, reach / pixel_aspect, least)
            out[inner] = part[_within(inner, outer)]
        alpha, steps = out, steps - now
    return alpha


def _moved(part: Matte, high: float, wide: float, least: np.ufunc) -> Matte:
    """One step of at most a pixel: the least (most) of what lies on a small ellipse around every pixel."""
    over = math.ceil(wide)
    padded = np.pad(part, ((1, 1), (over, over)), mode="edge")
    h, w = part.shape
    out = part
    for k in range(_DIRECTIONS):
        dy, dx = high * math.sin(2 * math.pi * k / _DIRECTIONS), wide * math.cos(2 * math.pi * k / _DIRECTIONS)
        top, left = math.floor(dy + 1e-9), math.floor(dx + 1e-9)
        fy, fx = np.float32(max(dy - top, 0)), np.float32(max(dx - left, 0))
        rows = slice(1 + top, 1 + top + h)
        side = padded[rows, over + left : over + left + w]
        if fx > 1e-6:
            side = side + fx * (padded[rows, over + left + 1 : over + left + 1 + w] - side)
        if fy > 1e-6:
            rows = slice(2 + top, 2 + top + h)
            below = padded[rows, over + left : over + left + w]
            if fx > 1e-6:
                below = below + fx * (padded[rows, over + left + 1 : over + left + 1 + w] - below)
            side = side + fy * (below - side)
        out = least(out, side)
    return out


def feather(alpha: Matte, pixels: float, pixel_aspect: float = 1.0) -> Matte:
    """The matte with a softer edge: a hard one becomes a ramp from `pixels` outside to `pixels` inside.

    A Gaussian of sigma = pixels / 2, cut at three sigma. Beyond the picture everything goes on as at its border.
    """
    if not pixels:
        return alpha
    down, across = _gaussian(pixels / 2), _gaussian(pixels / 2 / pixel_aspect)
    margin = max(down.size, across.size) // 2
    out = alpha.copy()
    for inner, outer in edge_boxes(alpha, margin):
        part = _filtered(_filtered(alpha[outer], down, 0), across, 1)
        out[inner] = part[_within(inner, outer)]
    return np.clip(out, 0, 1, out=out)


def _gaussian(sigma: float) -> NDArray[np.float32]:
    half = max(math.ceil(3 * sigma), 1)
    # The share of a Gaussian that falls into each pixel, so that a sigma far below one pixel still is right.
    bounds = [0.5 * (1 + math.erf((k - 0.5) / (sigma * math.sqrt(2)))) for k in range(-half, half + 2)]
    weights = np.diff(bounds)
    return (weights / weights.sum()).astype(np.float32)


def _filtered(part: Matte, weights: NDArray[np.float32], axis: int) -> Matte:
    half, length = weights.size // 2, part.shape[axis]
    pad = [(0, 0), (0, 0)]
    pad[axis] = (half, half)
    padded = np.pad(part, pad, mode="edge")
    out = np.zeros_like(part)
    for k, weight in enumerate(weights):
        out += weight * (padded[k : k + length] if axis == 0 else padded[:, k : k + length])
    return out


def _within(inner: tuple[slice, slice], outer: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return rows, columns


def despeckle(alpha: Matte, area: float) -> Matte:
    """The matte without its islands of less than `area` pixels; the largest one always stays. [h, w] 0..1.

    An island is a connected part of at least 0.1. What lies around a part that stays is not touched.
    """
    islands = Islands(alpha >= _SEEN)
    small = islands.sizes < area
    if islands.sizes.size:
        small[islands.sizes.argmax()] = False
    if not small.any():
        return alpha
    gone = islands.mask(small)
    fringe = _grown(gone) & ~islands.mask(~small) & ~_grown(islands.mask(~small))
    return np.where(gone | fringe, np.float32(0), alpha)


def fill_holes(alpha: Matte, area: float) -> Matte:
    """The matte with its holes of less than `area` pixels closed. [h, w] 0..1.

    A hole is a connected part of at most 0.9 that does not touch the picture's border.
    """
    holes = Islands(alpha <= 1 - _SEEN)
    small = (holes.sizes < area) & ~holes.at_border
    if not small.any():
        return alpha
    closed = _grown(holes.mask(small)) & ~holes.mask(~small)
    return np.where(closed, np.float32(1), alpha)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel larger on every side."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    grown: NDArray[np.bool_] = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown
