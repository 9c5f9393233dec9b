"""A soft edge made steady: what neighbouring frames say of the same place on the object is brought along the motion.

A network looks at every frame anew, so its edge trembles although the picture does not. Along the picture's motion
an honest edge stays the same; the mean over neighbours keeps what stays and averages the trembling out. Neighbours
are believed where the motion is known, where both pictures show the same there, and where both mattes nearly agree:
a change that is larger than trembling is a change.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.matting.guided import box
from rotomem.matting.motion import Motion, estimate_motions

_AGREE = 0.6
"""Difference of two mattes at which a neighbour is no longer believed."""
_ALIKE = 0.2
"""Difference of two pictures, likewise."""


View = tuple[int, Hashable]
"""A frame, and whatever tells one picture of it from another: the window it shows."""


@dataclass(frozen=True)
class Neighbour:
    """A frame nearby, seen from the one to be steadied.

    alpha    [h, w] its matte
    motion   [h, w, 2] (x, y) in pixels from the frame to this neighbour
    trust    [h, w] 0..1, how far that motion is to be believed
    """

    alpha: NDArray[np.float32]
    motion: Motion
    trust: NDArray[np.float32]


class Motions:
    """Where a frame's pixels are on its neighbours. What was estimated for one frame is kept for the next,
    whichever way a shot is gone through."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[View, View], tuple[Motion, NDArray[np.bool_]]] = {}

    def from_frame(
        self, frames: Sequence[View], pictures: Sequence[Tensor | None], at: int
    ) -> list[tuple[int, Motion, NDArray[np.float32]]]:
        """(index, motion, trust) of the neighbours that can be reached from frames[at], nearest first.

        frames     ascending
        pictures   [h, w, 3] of each; None: nothing was seen there, and nothing beyond it is reached
        """
        first, last = frames[0][0], frames[-1][0]
        self._pairs = {pair: told for pair, told in self._pairs.items() if all(first <= f <= last for f, _ in pair)}
        found = []
        own = pictures[at]
        for order in (range(at + 1, len(frames)), range(at - 1, -1, -1)):
            motion: Tensor | None = None
            known = torch.ones(())
            for k in order:
                before, picture = (k - 1 if k > at else k + 1), pictures[k]
                if own is None or picture is None:
                    break
                step, sure = (torch.from_numpy(a) for a in self._pair(frames, pictures, before, k))
                if motion is not None:  # onwards from where the last step ended
                    ended = _warped(torch.cat([step.permute(2, 0, 1), sure[None].float()]), motion)
                    step, sure = motion + ended[:2].permute(1, 2, 0), ended[2]
                motion, known = step, known * sure
                found.append((k, motion.numpy(), _trust(own, picture, motion, known)))
        return sorted(found, key=lambda one: abs(one[0] - at))

    def _pair(
        self, frames: Sequence[View], pictures: Sequence[Tensor | None], a: int, b: int
    ) -> tuple[Motion, NDArray[np.bool_]]:
        if (frames[a], frames[b]) not in self._pairs:
            first, second = pictures[a], pictures[b]
            assert first is not None and second is not None
            there, back = estimate_motions(first.numpy(), second.numpy())
            self._pairs[frames[a], frames[b]], self._pairs[frames[b], frames[a]] = there, back
        return self._pairs[frames[a], frames[b]]


def _trust(picture: Tensor, neighbour: Tensor, motion: Tensor, known: Tensor) -> NDArray[np.float32]:
    """How far a motion is to be believed [h, w]: where it is known and both pictures [h, w, 3] show the same."""
    moved = _warped(neighbour.permute(2, 0, 1), motion)
    apart = box((picture.permute(2, 0, 1) - moved).abs().amax(0, keepdim=True), 1)[0].float()
    return ((1 - apart / _ALIKE).clamp_(0, 1) * known).numpy()


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
