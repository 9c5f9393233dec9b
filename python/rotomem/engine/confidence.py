"""How far a matte can be trusted, told without knowing the truth: signals of one object on one frame, and confidence.

Everything here is a pure function of arrays at the network's raster. A signal is 0 where nothing speaks against the
matte; one that is not known (no second pass, no frame before) is left out.

    entropy        bits of doubt per pixel of edge: how wide the band is in which the network hesitates
    doubt          1 - the overlap (IoU) of mask and truth that the network's own probabilities promise
    disagreement   1 - the soft overlap of forward and backward pass
    area_jump      |ln| of the area against the frame before
    shape_jump     1 - the soft overlap with the frame before, centroids laid on each other
    distance       frames from the key it was tracked from, where one pass alone tells
    gone           1 where no pixel is rather the object's than not, else 0
    match          how far the object's pixels lie from what the artist drew, as features: 0 alike, 1 as any others
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import ShapeError
from rotomem.types import ObjectId

Probability = NDArray[np.float32]
"""[h, w], 0..1: how likely a pixel is the object's."""

Signals = Mapping[ObjectId, Mapping[str, float]]
"""Object -> name -> value."""

SIGNALS = ("entropy", "doubt", "disagreement", "area_jump", "shape_jump", "distance", "gone", "match")

BOTH, ALONE, DRIFT = 0.36, 0.19, 0.12
"""What is added to the logit of the promised overlap; see `confidence`."""

GONE = 0.75
"""What an object that shows nowhere keeps of its confidence: it may have left, or been lost (a quarter of such mattes
of composed clips)."""

_LEAST = 0.005
"""Confidence keeps this far from 0 and 1."""

_LEAST_PX = 4.0
"""Pixels added to edges and areas that are divided by, so that an object of a few pixels does not shout."""


def frame_signals(
    probability: Probability,
    *,
    forward: Probability | None = None,
    backward: Probability | None = None,
    distance: float | None = None,
) -> dict[str, float]:
    """The signals that are known of one object on one frame, by name, but for those of a step.

    probability         what is delivered: both passes blended, or the one there is
    forward, backward   both passes; disagreement is known where both are
    distance            frames from the key, where one pass alone tells

    Raises ShapeError where the maps have different sizes.
    Cost: about fifteen passes over the object's surroundings.
    """
    maps = [m for m in (probability, forward, backward) if m is not None]
    if any(m.shape != probability.shape or m.ndim != 2 for m in maps):
        raise ShapeError(f"maps are {[m.shape for m in maps]}", remedy="give all of one object at one raster [h, w]")
    window = _around(maps)
    p = _cut(probability, window)
    signals = {"entropy": entropy(p), "doubt": doubt(p), "gone": float(p.max(initial=0) <= 0.5)}
    if forward is not None and backward is not None:
        signals["disagreement"] = disagreement(_cut(forward, window), _cut(backward, window))
    if distance is not None:
        signals["distance"] = float(distance)
    return signals


def step_signals(now: Probability, before: Probability | None, match: float = math.nan) -> dict[str, float]:
    """The signals that are known of one step: jumps against the frame before, and the distance from what was drawn.

    before   the frame before in the order of the pass, or None
    match    as `Session.match_distance` tells it, NaN where it is not known
    """
    signals = {} if math.isnan(match) else {"match": match}
    if before is not None:
        window = _around([now, before])
        signals["area_jump"] = area_jump(_cut(before, window), _cut(now, window))
        signals["shape_jump"] = shape_jump(_cut(before, window), _cut(now, window))
    return signals


def confidence(signals: Mapping[str, float]) -> float:
    """How far the matte is expected to overlap (IoU) the truth: 0..1.

        logit c = logit(1 - doubt) + { BOTH where both passes tell, ALONE - DRIFT ln(1 + distance) where one does }

    Fitted to the overlap of 5268 mattes of composed clips, by logistic regression; the other signals changed its rank
    correlation there (0.89 for one pass, 0.92 for two) by 0.01 or less, so they only tell what kind of trouble it is.
    On real sequences, which nothing was fitted to, it is 0.80 and 0.91. An object that was swapped for another with
    full confidence is not found out.
    """
    promised = min(max(1 - signals["doubt"], _LEAST), 1 - _LEAST)
    logit = math.log(promised / (1 - promised))
    if "disagreement" in signals:
        logit += BOTH
    elif "distance" in signals:
        logit += ALONE - DRIFT * math.log1p(signals["distance"])
    return (GONE if signals["gone"] else 1) / (1 + math.exp(-logit))


def entropy(p: Probability) -> float:
    """Binary entropy summed over pixels, per pixel of edge length (the total variation): bits.

    A clean edge gives the width of its own softness, whatever the object's size.
    """
    inside = p[(p > 1e-4) & (p < 1 - 1e-4)].astype(np.float64)
    bits = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside)).sum()
    return float(bits / (_edge_length(p) + _LEAST_PX))


def doubt(p: Probability) -> float:
    """1 - E[|M and T|] / E[|M or T|] of the mask M = p > 1/2 and a truth T drawn from p: 0..1."""
    mask = p > 0.5
    held, outside = float(p[mask].sum(dtype=np.float64)), float(p[~mask].sum(dtype=np.float64))
    return 1 - (held + _LEAST_PX) / (int(np.count_nonzero(mask)) + outside + _LEAST_PX)


def disagreement(forward: Probability, backward: Probability) -> float:
    """1 - sum min / sum max of two maps: 0..1; 0 where both are empty."""
    return 1 - _overlap(forward, backward)


def area_jump(before: Probability, now: Probability) -> float:
    """|ln(area now / area before)|, areas being sums of probability: 0 or more."""
    areas = [float(m.sum(dtype=np.float64)) + _LEAST_PX for m in (before, now)]
    return abs(math.log(areas[1] / areas[0]))


def shape_jump(before: Probability, now: Probability) -> float:
    """1 - the soft overlap once the earlier map is moved, by whole pixels, to the later one's centroid: 0..1.

    What merely moves gives 0; what gains a limb, loses one, or jumps to something else does not.
    """
    if before.max(initial=0) < 0.5 and now.max(initial=0) < 0.5:
        return 0.0
    (y0, x0), (y1, x1) = _centroid(before), _centroid(now)
    return 1 - _overlap(_moved(before, round(y1 - y0), round(x1 - x0)), now)


def _overlap(a: Probability, b: Probability) -> float:
    union = float(np.maximum(a, b).sum(dtype=np.float64))
    return (float(np.minimum(a, b).sum(dtype=np.float64)) + _LEAST_PX) / (union + _LEAST_PX)


def _edge_length(p: Probability) -> float:
    """Total variation in pixels: the length of a sharp edge, of a soft one too (coarea formula)."""
    dy, dx = np.diff(p[:, :-1], axis=0), np.diff(p[:-1], axis=1)
    return float(np.hypot(dy, dx).sum(dtype=np.float64))


def _centroid(p: Probability) -> tuple[float, float]:
    rows, columns = p.sum(1, dtype=np.float64), p.sum(0, dtype=np.float64)
    total = rows.sum() + 1e-9
    return float(rows @ np.arange(rows.size) / total), float(columns @ np.arange(columns.size) / total)


def _moved(p: Probability, down: int, right: int) -> Probability:
    """A map moved by whole pixels; what leaves is gone, what comes in is 0."""
    out = np.zeros_like(p)
    h, w = p.shape
    if abs(down) < h and abs(right) < w:
        out[max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = p[
            max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
        ]
    return out


def _around(maps: list[Probability]) -> tuple[slice, slice]:
    """The box beyond which all maps are as good as 0, a pixel of margin included."""
    any_of = np.maximum.reduce(maps) > 1e-3
    rows, columns = np.flatnonzero(any_of.any(1)), np.flatnonzero(any_of.any(0))
    if not rows.size:
        return slice(0, 2), slice(0, 2)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _cut(p: Probability, window: tuple[slice, slice]) -> Probability:
    return p[window]
