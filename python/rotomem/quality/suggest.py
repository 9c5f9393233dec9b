"""Which frames are worth a key, and which single new key would help most.

Confidence is what `engine.confidence` expects a matte's overlap (IoU) with the truth to be; 1 - confidence is a loss.
A stretch far below the object's usual is flagged, and named after its worst frame. A key at frame k would win back

    gain(k) = sum_t loss(t) exp(-|t - k| / reach)        over the frames t between k's neighbouring keys,

reach being a quarter of the stretch between these, so that where the loss is the same everywhere the middle of the
longest stretch is chosen.

On seven real sequences (50 frames each, J&F .520 from the first frame) five keys suggested one after the other were
worth as much as five spread evenly from the outset: .720 and .722 (`rotomem eval --corrections 5`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rotomem.io.quality import QualityFile

_LEAST_REACH = 4.0
"""Frames over which what a key repairs falls to 1/e, at least."""

LOST = 0.5
"""Confidence below which a frame is flagged whatever the object."""

_DIP = 0.08
"""... and so is one this far below the object's own median: what is thin or small never reaches what is large."""

_BRIDGE = 2
"""Frames between two stretches that are too few to part them."""

_WORTH = 0.001
"""What a key must win at least, of mean confidence, to be suggested."""
_SHARED = 0.5
"""A suggested key is for the objects that win at least this share of what the first of them does."""


@dataclass(frozen=True)
class Curve:
    """One object through the shot.

    frames        ascending
    confidence    [T] 0..1; NaN where nothing is known or nothing is to be seen
    keys          frames on which the artist drew it (or said that it is absent)
    """

    name: str
    frames: tuple[int, ...]
    confidence: NDArray[np.float64]
    keys: frozenset[int]

    @property
    def mean(self) -> float:
        """Over what is known; NaN where nothing is."""
        known = self.confidence[np.isfinite(self.confidence)]
        return float(known.mean()) if known.size else math.nan


@dataclass(frozen=True)
class Flag:
    """A stretch of one object that wants looking at, first to last frame, both included; `worst` is where to look."""

    name: str
    first: int
    last: int
    worst: int
    confidence: float


@dataclass(frozen=True)
class Suggestion:
    """One new key.

    gain   what mean confidence over the shot's objects and frames may win, 0..1
    """

    frame: int
    objects: tuple[str, ...]
    gain: float


def flags(curve: Curve) -> list[Flag]:
    """The stretches worth looking at, in order of time."""
    c = curve.confidence
    known = np.isfinite(c)
    if not known.any():
        return []
    drawn = np.isin(curve.frames, list(curve.keys))
    below = known & ~drawn & (c < max(LOST, float(np.median(c[known])) - _DIP))
    stretch = below.copy()
    for here, there in pairwise(np.flatnonzero(below)):
        if there - here <= _BRIDGE + 1 and not drawn[here:there].any():
            stretch[here:there] = True
    bounds = np.flatnonzero(np.diff(np.pad(stretch.astype(np.int8), 1))).reshape(-1, 2)
    found = []
    for start, stop in bounds:
        worst = start + int(np.where(below, c, np.inf)[start:stop].argmin())
        first, last = curve.frames[start], curve.frames[stop - 1]
        found.append(Flag(curve.name, first, last, curve.frames[worst], float(c[worst])))
    return found


def gains(curve: Curve) -> NDArray[np.float64]:
    """[T] what a key at each frame would win, in frames of full confidence; 0 where there is one already."""
    frames = np.array(curve.frames, np.float64)
    drawn = np.isin(curve.frames, list(curve.keys))
    loss = np.where(np.isfinite(curve.confidence) & ~drawn, 1 - curve.confidence, 0)
    out = np.zeros(len(frames))
    segment = np.cumsum(drawn)  # frames between the same two keys have the same number
    for number in np.unique(segment):
        at = np.flatnonzero((segment == number) & ~drawn)
        reach = max(len(at) / 4, _LEAST_REACH)
        repaired = np.exp(-np.abs(frames[at, None] - frames[None, at]) / reach)
        out[at] = repaired @ loss[at]
    return out


def suggest(curves: Sequence[Curve]) -> Suggestion | None:
    """The new key that would help the shot most; None where none would by 0.1 %. Equal ones: the earliest."""
    if not curves:
        return None
    each = np.stack([gains(curve) for curve in curves])
    total = each.sum(0)
    k = int(total.argmax())
    seen = sum(int(np.isfinite(c.confidence).sum()) for c in curves)
    if not total[k] > _WORTH * seen:
        return None
    names = tuple(c.name for c, gain in zip(curves, each[:, k], strict=True) if gain >= _SHARED * each[:, k].max())
    return Suggestion(curves[0].frames[k], names, float(total[k]) / seen)


def summary_of(curves: Sequence[Curve], found: Sequence[Flag], suggestion: Suggestion | None) -> str:
    """Confidence, flags and the suggested key, in words."""
    means = [c.mean for c in curves if math.isfinite(c.mean)]
    if not means:
        return "nothing is known of the mattes"
    count = len(curves[0].frames)
    text = f"{count} frame{'' if count == 1 else 's'}, mean confidence {100 * float(np.mean(means)):.0f} %"
    text += f", {len(found)} stretch{'' if len(found) == 1 else 'es'} to look at"
    if suggestion:
        text += f". A key at {suggestion.frame} for {', '.join(suggestion.objects)} would help most"
    return text


def curves_of(quality: QualityFile, frames: Sequence[int]) -> list[Curve]:
    """One curve an object, over these frames; NaN where the file knows nothing."""
    frames = tuple(sorted(frames))
    return [
        Curve(
            name,
            frames,
            np.array([quality.signals.get(f, {}).get(name, {}).get("confidence", math.nan) for f in frames]),
            frozenset(f for f, names in quality.keys.items() if name in names),
        )
        for name in quality.objects
    ]
