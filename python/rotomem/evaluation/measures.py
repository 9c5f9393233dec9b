"""Measures: region and boundary of a mask (J, F), and the error of an alpha against fractional truth.

J and F are those of DAVIS (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017) to the pixel: a boundary is one pixel
wide and lies on the upper left side of a change, and boundaries match within a disc of 0.8 % of the image diagonal.
The four alpha errors are those of Rhemann et al. (CVPR 2009), in the units of alphamatting.com. NumPy only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rotomem.errors import ShapeError
from rotomem.matting.islands import Islands

Mask: TypeAlias = NDArray[np.bool_]
Alpha: TypeAlias = NDArray[np.float64]

GRADIENT_SIGMA = 1.4
CONNECTIVITY_STEP = 0.1
CONNECTIVITY_THETA = 0.15
"""A pixel counts as disconnected only from this difference on (theta in Rhemann et al., section 4)."""


@dataclass(frozen=True)
class Statistics:
    """A measure over the frames of one object.

    mean     mean over frames
    recall   share of frames above 0.5
    decay    mean of the first quarter minus mean of the last; positive where quality is lost with time
    """

    mean: float
    recall: float
    decay: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def region_similarity(pred: ArrayLike, truth: ArrayLike, void: ArrayLike | None = None) -> float:
    """J: intersection over union of two masks; 1 where both are empty.

    pred, truth   [H, W] bool, or any array whose non-zero pixels are the object
    void          [H, W] bool pixels that count for neither, or None
    """
    a, b = _pair(pred, truth, void)
    union = np.count_nonzero(a | b)
    return 1.0 if union == 0 else np.count_nonzero(a & b) / union


def boundary_accuracy(
    pred: ArrayLike, truth: ArrayLike, tolerance: float = 0.008, void: ArrayLike | None = None
) -> float:
    """F: harmonic mean of precision and recall of the boundary pixels.

    A boundary pixel is matched when the other boundary has a pixel within ceil(tolerance * diagonal) pixels of it
    (a disc). Two empty boundaries score 1, one empty boundary scores 0.

    pred, truth   [H, W], as for `region_similarity`
    tolerance     share of the image diagonal; from 1 on, pixels
    """
    a, b = _pair(pred, truth, void)
    radius = int(tolerance) if tolerance >= 1 else math.ceil(tolerance * math.hypot(*a.shape))
    edge_a, edge_b = boundary(a), boundary(b)
    n_a, n_b = np.count_nonzero(edge_a), np.count_nonzero(edge_b)
    if n_a == 0 and n_b == 0:
        return 1.0
    if n_a == 0 or n_b == 0:
        return 0.0
    precision = np.count_nonzero(edge_a & dilate_disc(edge_b, radius)) / n_a
    recall = np.count_nonzero(edge_b & dilate_disc(edge_a, radius)) / n_b
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def boundary(mask: ArrayLike) -> Mask:
    """The one pixel wide boundary map [H, W] of a mask [H, W]: pixels that differ from the next one to the right,
    below, or below right. The picture's own border is no boundary."""
    m = np.asarray(mask) != 0
    padded = np.pad(m, ((0, 1), (0, 1)), mode="edge")
    edge: Mask = (m != padded[:-1, 1:]) | (m != padded[1:, :-1]) | (m != padded[1:, 1:])
    return edge


def dilate_disc(mask: Mask, radius: int) -> Mask:
    """Every pixel within `radius` (Euclidean, inclusive) of a set pixel. mask [H, W] bool.

    One pass finds the distance to the nearest set pixel along the row; the disc is then a stack of 2 r + 1 intervals.
    """
    h, w = mask.shape
    far = np.int32(w + radius + 1)
    x = np.arange(w, dtype=np.int32)
    left = np.maximum.accumulate(np.where(mask, x, -far), axis=1)
    right = np.minimum.accumulate(np.where(mask, x, w + far)[:, ::-1], axis=1)[:, ::-1]
    row_distance = np.minimum(np.minimum(x - left, right - x), radius + 1).astype(np.uint16)
    out = np.zeros_like(mask)
    for dy in range(-min(radius, h - 1), min(radius, h - 1) + 1):
        half_width = math.isqrt(radius * radius - dy * dy)
        to, source = slice(max(0, -dy), h - max(0, dy)), slice(max(0, dy), h - max(0, -dy))
        out[to] |= row_distance[source] <= half_width
    return out


def statistics(values: Sequence[float] | NDArray[np.float64]) -> Statistics:
    """Mean, recall and decay of one measure over the frames of an object, in order. NaN where there is no frame.

    The quarters are those of the DAVIS evaluation: their bounds are round(linspace(1, n, 5)) and neighbours share
    the frame on the bound.
    """
    v = np.asarray(values, np.float64)
    if v.size == 0:
        return Statistics(math.nan, math.nan, math.nan)
    bounds = np.round(np.linspace(1, v.size, 5) + 1e-10).astype(int) - 1
    first, last = v[bounds[0] : bounds[1] + 1], v[bounds[3] : bounds[4] + 1]
    return Statistics(float(v.mean()), float((v > 0.5).mean()), float(first.mean() - last.mean()))


def mean_known(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN where none is."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def sad(pred: ArrayLike, truth: ArrayLike, region: ArrayLike | None = None) -> float:
    """Sum of absolute differences of two alphas [H, W] in 0..1, in thousands of pixels.

    region   [H, W] bool, the pixels that count (the unknown part of a trimap); None means all
    """
    a, b, where = _alphas(pred, truth, region)
    return float(np.abs(a - b)[where].sum() / 1000)


def mse(pred: ArrayLike, truth: ArrayLike, region: ArrayLike | None = None) -> float:
    """Mean squared difference of two alphas [H, W] over the region; 0 where the region is empty."""
    a, b, where = _alphas(pred, truth, region)
    return float(np.square(a - b)[where].mean()) if where.any() else 0.0


def gradient_error(pred: ArrayLike, truth: ArrayLike, region: ArrayLike | None = None) -> float:
    """Sum of squared differences of the gradient magnitudes of two alphas, in thousands.

    Gradients are first derivatives of a Gaussian with sigma 1.4, filters of unit energy, edges repeated.
    """
    a, b, where = _alphas(pred, truth, region)
    return float(np.square(_gradient_magnitude(a) - _gradient_magnitude(b))[where].sum() / 1000)


def connectivity_error(pred: ArrayLike, truth: ArrayLike, region: ArrayLike | None = None) -> float:
    """How much coverage hangs loose from the main body in one alpha but not in the other, in thousands of pixels.

    For each pixel l is the highest level (in steps of 0.1) at which it still belongs to the largest 4-connected part
    that both alphas hold at that level. Its degree of connection is 1 - d where d = alpha - l is at least 0.15, else
    1; the error sums the absolute differences.
    """
    a, b, where = _alphas(pred, truth, region)
    level = np.full(a.shape, -1.0)
    steps = np.arange(0, 1 + CONNECTIVITY_STEP / 2, CONNECTIVITY_STEP)
    for below, threshold in itertools.pairwise(steps):
        # 1e-9: an alpha of 0.3 written as 3 * 0.1 must reach the level 0.3
        body = largest_component((a >= threshold - 1e-9) & (b >= threshold - 1e-9))
        level[(level < 0) & ~body] = below
    level[level < 0] = 1.0
    d_a, d_b = a - level, b - level
    loose_a = np.where(d_a >= CONNECTIVITY_THETA, d_a, 0)
    loose_b = np.where(d_b >= CONNECTIVITY_THETA, d_b, 0)
    return float(np.abs(loose_a - loose_b)[where].sum() / 1000)


def largest_component(mask: Mask) -> Mask:
    """The largest 4-connected part of a mask [H, W]; the first in reading order where two are equal."""
    islands = Islands(mask)
    return islands.mask(np.arange(islands.sizes.size) == (islands.sizes.argmax() if islands.sizes.size else 0))


def _gradient_magnitude(alpha: Alpha) -> Alpha:
    """|gradient| [H, W] by Gaussian derivatives; kernels reach to 1 % of the Gaussian and have unit energy."""
    sigma = GRADIENT_SIGMA
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * 0.01)))
    t = np.arange(-half, half + 1, dtype=np.float64)
    smooth = np.exp(-t * t / (2 * sigma * sigma)) / (sigma * math.sqrt(2 * math.pi))
    derive = t * smooth / (sigma * sigma)
    # the outer product has unit energy when each factor has
    smooth /= np.linalg.norm(smooth)
    derive /= np.linalg.norm(derive)
    gx = _filter(_filter(alpha, derive, 1), smooth, 0)
    gy = _filter(_filter(alpha, smooth, 1), derive, 0)
    return np.hypot(gx, gy)


def _filter(image: Alpha, kernel: Alpha, axis: int) -> Alpha:
    half = kernel.size // 2
    pad = [(0, 0), (0, 0)]
    pad[axis] = (half, half)
    padded = np.pad(image, pad, mode="edge")
    out = np.zeros_like(image)
    length = image.shape[axis]
    for i, weight in enumerate(kernel):
        out += weight * (padded[i : i + length] if axis == 0 else padded[:, i : i + length])
    return out


def _pair(pred: ArrayLike, truth: ArrayLike, void: ArrayLike | None) -> tuple[Mask, Mask]:
    a, b = np.asarray(pred) != 0, np.asarray(truth) != 0
    _same_shape(a, b, "truth")
    if void is None:
        return a, b
    v = np.asarray(void) != 0
    _same_shape(a, v, "void")
    return a & ~v, b & ~v


def _alphas(pred: ArrayLike, truth: ArrayLike, region: ArrayLike | None) -> tuple[Alpha, Alpha, Mask]:
    a, b = np.asarray(pred, np.float64), np.asarray(truth, np.float64)
    _same_shape(a, b, "truth")
    if region is None:
        return a, b, np.ones(a.shape, bool)
    where = np.asarray(region) != 0
    _same_shape(a, where, "region")
    return a, b, where


def _same_shape(a: NDArray[Any], b: NDArray[Any], name: str) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise ShapeError(
            f"pred is {list(a.shape)} and {name} is {list(b.shape)}; both must be [H, W] of one size",
            remedy="resize the prediction to the truth before measuring",
        )
