"""The colour of the object alone where it shares a pixel with what is behind it.

A plate's pixel is I = alpha F + (1 - alpha) B. Multiplied by alpha it still brings (1 - alpha) of the old background
into the new comp: the fringe. F and B are estimated together, as smooth as alpha lets them be, from coarse levels of
a pyramid to fine ones (multi-level estimation, Germer et al., ICPR 2020), in the plate's own values: in a
scene-linear plate that is light. NumPy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import ShapeError

Picture = NDArray[np.float32]

_SMOOTH = 1e-5
"""What a difference between neighbours costs where alpha is flat, beside the picture's own error; and"""
_ACROSS = 0.1
"""by how much more for a difference of alpha: there colours are known least."""
_COARSE, _FEW, _MANY = 128, 4, 20  # levels up to this side take many rounds
_SURE = 0.9  # alpha from which a pixel's colour is a first guess at the object's; likewise of what is behind
_STEP = 1 / 255  # what lies nearer to 0 or 1 counts as that
_MARGIN = 16  # pixels around soft alpha from which colours are taken


def estimate_foreground(picture: Picture, alpha: NDArray[np.float32]) -> Picture:
    """The picture with the object's own colour wherever alpha is an 8-bit step from 0 and 1; elsewhere as it is.

    picture   [H, W, 3] scene-linear; NaN and infinities count as 0 wherever something shows through, since a comp
              would multiply them by 0
    alpha     [H, W] 0..1
    Raises ShapeError where sizes differ. Deterministic. Memory: about ten times the picture in the box around soft
    alpha.
    """
    if picture.shape != (*alpha.shape, 3):
        raise ShapeError(f"picture is {list(picture.shape)}, expected {[*alpha.shape, 3]}")
    absurd = ~np.isfinite(picture) & (alpha < 1)[..., None]
    if absurd.any():
        picture = np.where(absurd, np.float32(0), picture)
    alpha = np.where(alpha < _STEP, np.float32(0), np.where(alpha > 1 - _STEP, np.float32(1), alpha))
    soft = (alpha > 0) & (alpha < 1)
    rows, columns = np.flatnonzero(soft.any(1)), np.flatnonzero(soft.any(0))
    if not rows.size:
        return picture
    box = (
        slice(max(int(rows[0]) - _MARGIN, 0), int(rows[-1]) + 1 + _MARGIN),
        slice(max(int(columns[0]) - _MARGIN, 0), int(columns[-1]) + 1 + _MARGIN),
    )
    part = np.asarray(picture[box], np.float32)
    part = np.where(np.isfinite(part), part, np.float32(0))
    colour = _estimate(part, alpha[box])
    out = picture.copy()
    out[box][soft[box]] = colour[soft[box]]
    return out


def _estimate(picture: Picture, alpha: NDArray[np.float32]) -> Picture:
    """F [H, W, 3] of a picture and its matte."""
    sure = [np.clip((a - _SURE) / (1 - _SURE), 0, 1)[..., None] for a in (alpha, 1 - alpha)]
    pyramid = [(picture, alpha, sure, [picture * s for s in sure])]
    while max(pyramid[-1][1].shape) > 1:
        image, share, sure, shown = pyramid[-1]
        pyramid.append((_halved(image), _halved(share), [_halved(s) for s in sure], [_halved(s) for s in shown]))
    colours = [pyramid[-1][0]] * 2
    for image, share, sure, shown in reversed(pyramid):
        h, w = share.shape
        up = (np.arange(h)[:, None] // 2, np.arange(w)[None, :] // 2)
        for i in (0, 1):
            guessed = colours[i] if colours[i].shape[:2] == (h, w) else colours[i][up]
            # Begin with what is seen unmixed around here, where anything is.
            colours[i] = np.where(sure[i] > 0, shown[i] / np.maximum(sure[i], np.float32(1e-6)), guessed)
        y, x = np.nonzero((share > 0) & (share < 1))
        if y.size:
            _settle(image, share, colours[0], colours[1], y, x, _MANY if max(h, w) <= _COARSE else _FEW)
    return np.maximum(colours[0], np.minimum(picture, 0))


def _settle(
    image: Picture,
    alpha: NDArray[np.float32],
    front: Picture,
    back: Picture,
    y: NDArray[np.intp],
    x: NDArray[np.intp],
    rounds: int,
) -> None:
    """Bring both colours of soft pixels (y, x) closer to what explains the picture and their neighbours; in place.

    Every pixel's least squares: (I - a F - (1 - a) B)**2 + sum over 4 neighbours of w ((F - F_n)**2 + (B - B_n)**2).
    """
    h, w = alpha.shape
    both = np.concatenate([front, back], 2).reshape(-1, 6)
    here, flat = y * w + x, alpha.reshape(-1)
    near = [
        np.clip(y + dy, 0, h - 1) * w + np.clip(x + dx, 0, w - 1) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    share, colour = flat[here][:, None], image[y, x]
    weights = [_SMOOTH + _ACROSS * np.abs(flat[at][:, None] - share) for at in near]
    total = weights[0] + weights[1] + weights[2] + weights[3]
    weights = [weight / total for weight in weights]
    explained = np.square(share) + np.square(1 - share) + total
    front_gain, back_gain = share / explained, (1 - share) / explained
    for _ in range(rounds):
        mean = np.take(both, near[0], 0) * weights[0]
        for at, weight in zip(near[1:], weights[1:], strict=True):
            mean += np.take(both, at, 0) * weight
        off = colour - share * mean[:, :3] - (1 - share) * mean[:, 3:]
        mean[:, :3] += front_gain * off
        mean[:, 3:] += back_gain * off
        both[here] = mean
    front[y, x], back[y, x] = both[here, :3], both[here, 3:]


def _halved(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every 2 x 2 pixels averaged; edges repeated where a side is odd."""
    h, w = plane.shape[:2]
    pad = [(0, h % 2), (0, w % 2)] + [(0, 0)] * (plane.ndim - 2)
    even = np.pad(plane, pad, mode="edge")
    total: NDArray[np.float32] = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return total / np.float32(4)
