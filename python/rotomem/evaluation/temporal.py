"""How steady a matte is: errors of an alpha's change between two frames, with truth and without.

dtSSD and MESSDdt are the two measures of temporal coherence that Erofeev et al. (BMVC 2015, section 4) found closest
to what people see. Both need the true alpha. `flicker` does not: it says how much of a matte's edge comes and goes
although the picture tells where everything went. NumPy only; motion is given (`motion.estimate_motion` makes it).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rotomem.errors import ShapeError
from rotomem.evaluation.measures import boundary
from rotomem.matting.motion import Motion


def dt_ssd(before: ArrayLike, after: ArrayLike, true_before: ArrayLike, true_after: ArrayLike) -> float:
    """dtSSD: root mean square error of alpha's change from one frame to the next, times 100.

        100 sqrt(mean_p ((a_t+1 - a_t) - (b_t+1 - b_t))**2),    a the matte, b the truth

    The mean in the place of the published sum makes pictures of different sizes comparable (as Lin et al., WACV 2022
    report it). All four are alphas [H, W] in 0..1.
    """
    a, b, c, d = _maps(before, after, true_before, true_after)
    return float(100 * np.sqrt(np.mean(np.square((b - a) - (d - c)))))


def messd_dt(
    before: ArrayLike, after: ArrayLike, true_before: ArrayLike, true_after: ArrayLike, motion: Motion
) -> float:
    """MESSDdt: how much the squared error of alpha changes along the motion of the picture, times 1000.

        1000 mean_p |e_t(p)**2 - e_t+1(p + v(p))**2|,    e = a - b

    An error that travels with the object costs nothing; one that comes and goes does. Pixels that leave the picture
    do not count. The published sum is a mean here.

    before, after, true_before, true_after   alphas [H, W] in 0..1
    motion    [H, W, 2] from the first frame to the second
    """
    a, b, c, d = _maps(before, after, true_before, true_after)
    moved, inside = warp(np.square(b - d), motion)
    change = np.abs(np.square(a - c) - moved)[inside]
    return float(1000 * change.mean()) if change.size else 0.0


def flicker(before: ArrayLike, after: ArrayLike, motion: Motion, reliable: ArrayLike | None = None) -> float:
    """How far a matte's edge moves against the picture, in pixels: 0 where the matte moves with what it shows.

        sum_p |a_t(p) - a_t+1(p + v(p))| / contour

    A straight edge that jumps by one pixel gives 1, and so does one whose width of softness changes by as much
    coverage. NaN where neither frame shows a contour.

    before, after   alphas [H, W] in 0..1
    motion          [H, W, 2] from the first frame to the second
    reliable        [H, W] bool, where the motion is known; None: everywhere. Pixels that leave the picture do not
                    count, nor does their part of the contour
    """
    a, b = _maps(before, after)
    moved, counts = warp(b, motion)
    if reliable is not None:
        counts &= np.asarray(reliable) != 0
    contour = max(int((boundary(x >= 0.5) & counts).sum()) for x in (a, moved))
    return float(np.abs(a - moved)[counts].sum() / contour) if contour else math.nan


def warp(after: ArrayLike, motion: Motion) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What the next frame shows where each pixel went: after(p + v(p)) [H, W] bilinear, and where that is inside.

    after    [H, W]
    motion   [H, W, 2], whole and fractional pixels
    """
    image = np.asarray(after, np.float64)
    if motion.shape != (*image.shape, 2):
        raise ShapeError(f"motion is {list(motion.shape)}, expected {[*image.shape, 2]}")
    h, w = image.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    x, y = x + motion[..., 0], y + motion[..., 1]
    inside: NDArray[np.bool_] = (x >= -0.5) & (x <= w - 0.5) & (y >= -0.5) & (y <= h - 0.5)
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    fx, fy = x - left, y - top
    upper = image[top, left] * (1 - fx) + image[top, right] * fx
    lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
    return upper * (1 - fy) + lower * fy, inside


def _maps(*arrays: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    maps: list[NDArray[Any]] = [np.asarray(a, np.float64) for a in arrays]
    if maps[0].ndim != 2 or any(m.shape != maps[0].shape for m in maps):
        raise ShapeError(
            "alphas are " + ", ".join(str(list(m.shape)) for m in maps) + "; all must be [H, W] of one size",
            remedy="resize the matte to the truth before measuring",
        )
    return tuple(maps)
