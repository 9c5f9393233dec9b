"""A soft edge made steady: what neighbouring frames say of the same place on the object is brought along the motion.

A network looks at every frame anew, so its edge trembles although the picture does not. Along the picture's motion
an honest edge stays the same; the mean over neighbours keeps what stays and averages the trembling out. Neighbours
are believed where the motion is known, where both pictures show the same there, and where both mattes nearly agree:
a change that is larger than trembling is a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.matting.guided import box

REACH = 2
"""Frames on either side."""
_AGREE = 0.35
"""Difference of two mattes at which a neighbour is no longer believed."""
_ALIKE = 0.1
"""Difference of two pictures, likewise."""


@dataclass(frozen=True)
class Neighbour:
    """A frame nearby, seen from the one to be steadied.

    alpha    [h, w] its matte
    motion   [h, w, 2] (x, y) in pixels from the frame to this neighbour
    trust    [h, w] 0..1, how far that motion is to be believed
    """

    alpha: NDArray[np.float32]
    motion: NDArray[np.float32]
    trust: NDArray[np.float32]


def trust(
    picture: Tensor, neighbour: Tensor, motion: NDArray[np.float32], known: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """How far a motion is to be believed [h, w]: where it is known and both pictures [h, w, 3] show the same."""
    moved = _warped(neighbour.permute(2, 0, 1), torch.from_numpy(motion))
    apart = box((picture.permute(2, 0, 1) - moved).abs().amax(0, keepdim=True), 1)[0]
    alike = (1 - apart / _ALIKE).clamp_(0, 1) * torch.from_numpy(known)
    return alike.float().numpy()


def stabilise(alpha: NDArray[np.float32], neighbours: Sequence[Neighbour], strength: float) -> NDArray[np.float32]:
    """The matte [h, w] steadied by its neighbours.

    strength   0..1: how much a neighbour that is wholly believed counts beside the frame itself
    """
    if not strength or not neighbours:
        return alpha
    own = torch.from_numpy(alpha)
    total, weights = own.clone(), torch.ones_like(own)
    for near in neighbours:
        moved = _warped(torch.from_numpy(near.alpha)[None], torch.from_numpy(near.motion))[0]
        agree = 1 - (box((moved - own)[None], 1)[0].float().abs() / _AGREE)
        weight = strength * agree.clamp_(0, 1) * torch.from_numpy(near.trust)
        total += weight * moved
        weights += weight
    return (total / weights).clamp_(0, 1).numpy()


def _warped(planes: Tensor, motion: Tensor) -> Tensor:
    """Planes [C, h, w] where the motion [h, w, 2] leads, bilinear, edges repeated."""
    h, w = motion.shape[:2]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grid = ((torch.stack([x, y], -1) + motion) * 2 + 1) / torch.tensor([w, h]) - 1
    return F.grid_sample(planes[None], grid[None], padding_mode="border", align_corners=False)[0]
