"""What tells an object from everything else, learned from a hint on one picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_COMPONENTS = 32
_WAVES = 32
_WIDTH = 1.5
_REGULAR = 20.0
_TOTAL = 1000.0
_SEED = 10.0
_FLOOR = 0.1  # of the mean weight: places the classifier is sure of still slow its steps
_NEWTON_STEPS = 4


def describe(colour: Tensor, features: Tensor | None) -> Tensor:
    """What is known of each place, as columns that a linear classifier can tell apart: [D, N] float32, N = h * w.

    colour     [3, h, w] display-referred 0..1
    features   [C, h, w] the model's at the same places, or None; whitened principal components of these are taken
    """
    rows = [torch.ones(1, colour[0].numel())]
    if features is not None:
        rows.append(_whitened(features.flatten(1).float(), _COMPONENTS))
    # Random Fourier features: a linear function of these waves is any smooth function of colour (Rahimi and Recht,
    # NIPS 2007).
    opponent = opponent_colour(colour).flatten(1)
    opponent = opponent - opponent.mean(1, keepdim=True)
    opponent = opponent / (opponent.std(1).mean() + 1e-6)
    rng = torch.Generator().manual_seed(0)
    waves = _WIDTH * torch.randn(_WAVES, 3, generator=rng)
    phase = 2 * math.pi * torch.rand(_WAVES, 1, generator=rng)
    rows.append(3 * math.sqrt(2 / _WAVES) * torch.cos(waves @ opponent + phase))
    return torch.cat(rows)


def opponent_colour(colour: Tensor) -> Tensor:
    """[3, h, w] RGB to lightness, red against blue, green against both, of about the same weight to the eye."""
    r, g, b = colour
    return torch.stack([(r + g + b) / 3, 0.7 * (r - b), 0.4 * (2 * g - r - b)])


def _whitened(rows: Tensor, count: int) -> Tensor:
    """The `count` strongest principal components of [C, N], each of unit variance."""
    centred = rows - rows.mean(1, keepdim=True)
    centred = centred / (centred.std(1, keepdim=True) + 1e-4)
    values, vectors = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    values, vectors = values[-count:], vectors[:, -count:]
    # The sign of a vector is the library's whim; the classifier does not mind it.
    return (vectors / (values.clamp(min=0).sqrt() + 1e-3)).T @ centred


def tell_apart(rows: Tensor, target: Tensor, seeds: Tensor) -> Tensor:
    """Log odds [N] that a place is of the object: logistic regression, both sides of equal weight.

    rows     [D, N] from `describe`
    target   [N] 0..1, what is believed so far
    seeds    [N] bool, places whose target is what the artist said: each counts as much as 10 in 1000
    """
    inside = target.sum() + 1
    outside = (1 - target).sum() + 1
    weight = _TOTAL / 2 * (target / inside + (1 - target) / outside) + _SEED * seeds
    ridge = torch.full((rows.shape[0],), _REGULAR)
    ridge[0] = 1e-3
    theta = torch.zeros(rows.shape[0])
    for _ in range(_NEWTON_STEPS):
        guess = torch.sigmoid((theta @ rows).clamp(-8, 8))
        gradient = rows @ (weight * (guess - target)) + ridge * theta
        curvature = (weight * guess * (1 - guess)).clamp(min=_FLOOR * _TOTAL / target.numel())
        theta = theta - torch.linalg.solve((rows * curvature) @ rows.T + torch.diag(ridge), gradient)
    return theta @ rows
