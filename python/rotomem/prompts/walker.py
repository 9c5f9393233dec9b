"""The random walker with a prior on a grid of places: a hint becomes a mask that follows the picture's edges.

Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005, equation 9: with L the Laplacian
of the grid, prior p and its strength s, the mask x minimises x' L x + sum s (x - p)^2, so (L + diag s) x = s p. A
strength far above the weights of the grid makes a seed. The matrix is positive definite and never built: conjugate
gradients with its diagonal as preconditioner need some tens of steps from a start near the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST = 0.01
_TOLERANCE = 1e-3
_MOST_STEPS = 300


@dataclass(frozen=True)
class GridWeights:
    """How easily a walker steps from place to place, 0.01..1.01.

    right   [h, w - 1], between neighbours along a row
    down    [h - 1, w]
    """

    right: Tensor
    down: Tensor

    @classmethod
    def of(cls, features: Tensor, sharpness: float) -> GridWeights:
        """From what is seen at each place, [C, h, w]: exp(-sharpness * d^2 / mean d^2) (Grady 2005, equation 2)."""
        right = (features[:, :, 1:] - features[:, :, :-1]).square().sum(0)
        down = (features[:, 1:] - features[:, :-1]).square().sum(0)
        count = max(right.numel() + down.numel(), 1)
        mean = (right.sum() + down.sum()) / count + 1e-8
        return cls(torch.exp(-sharpness / mean * right) + _LEAST, torch.exp(-sharpness / mean * down) + _LEAST)

    def degrees(self) -> Tensor:
        """[h, w], the diagonal of the Laplacian."""
        h, w = self.right.shape[0], self.down.shape[1]
        out = self.right.new_zeros(h, w)
        out[:, :-1] += self.right
        out[:, 1:] += self.right
        out[:-1] += self.down
        out[1:] += self.down
        return out

    def laplacian(self, x: Tensor) -> Tensor:
        """L x for x [h, w]."""
        across, along = self.right * (x[:, 1:] - x[:, :-1]), self.down * (x[1:] - x[:-1])
        out = torch.zeros_like(x)
        out[:, :-1] -= across
        out[:, 1:] += across
        out[:-1] -= along
        out[1:] += along
        return out


def walk(weights: GridWeights, prior: Tensor, strength: Tensor) -> Tensor:
    """The mask [h, w] in 0..1 that a prior becomes.

    prior      [h, w] 0..1
    strength   [h, w] above 0, as the weights count

    Cost: about 15 operations a place and step; some tens of steps, 300 at most. No place would then move by more
    than 0.001 if its neighbours stood still.
    """
    diagonal = strength + weights.degrees()
    x = prior.clone()
    residue = -weights.laplacian(x)
    scaled = direction = residue / diagonal
    energy = (residue * scaled).sum()
    for _ in range(_MOST_STEPS):
        if float(scaled.abs().max()) <= _TOLERANCE:
            break
        image = strength * direction + weights.laplacian(direction)
        length = energy / (direction * image).sum()
        x += length * direction
        residue -= length * image
        scaled = residue / diagonal
        after = (residue * scaled).sum()
        direction = scaled + after / energy * direction
        energy = after
    return x.clamp_(0, 1)
