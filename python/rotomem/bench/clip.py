"""A clip to track, made while it is timed by nobody: textured ellipses that wander over a moving ground."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

_MARGIN = 96
"""Pixels the ground can move."""


@dataclass
class Clip:
    """Frames of any number, periodic in time.

    height, width   of the picture
    objects         how many; each stays around a place of its own, in sight
    """

    height: int
    width: int
    objects: int
    seed: int = 0
    _ground: NDArray[np.float32] = field(init=False)
    _skins: list[NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        margin = self._reach()
        self._ground = 0.2 + 0.5 * _texture(self.height + margin, self.width + margin, self.seed)
        side = 2 * math.ceil(max(self._radii())) + 2
        # Each object's own colours, so that they can be told apart.
        tints = np.random.default_rng(self.seed).uniform(0.1, 0.9, (self.objects, 3)).astype(np.float32)
        self._skins = [0.35 * _texture(side, side, self.seed + 1 + i) + 0.65 * tint for i, tint in enumerate(tints)]

    def frame(self, t: int) -> NDArray[np.float32]:
        """[H, W, 3] float32 in 0..1."""
        reach = self._reach()
        dy, dx = (round((0.5 + 0.5 * math.sin(t * w)) * reach) for w in (0.031, 0.023))
        picture = self._ground[dy : dy + self.height, dx : dx + self.width].copy()
        for i, (window, inside) in enumerate(self._shapes(t)):
            rows, columns = window
            skin = self._skins[i][: rows.stop - rows.start, : columns.stop - columns.start]
            picture[window] = np.where(inside[..., None], skin, picture[window])
        return picture

    def mask(self, t: int) -> NDArray[np.uint8]:
        """[H, W] labels, 0 the ground."""
        labels = np.zeros((self.height, self.width), np.uint8)
        for i, (window, inside) in enumerate(self._shapes(t)):
            labels[window][inside] = i + 1
        return labels

    def _reach(self) -> int:
        return max(2, min(_MARGIN, self.height // 6))

    def _cells(self) -> tuple[int, int]:
        columns = math.ceil(math.sqrt(self.objects * self.width / self.height))
        return math.ceil(self.objects / columns), columns

    def _radii(self) -> tuple[float, float]:
        rows, columns = self._cells()
        return 0.3 * min(self.height / rows, 0.8 * self.height), 0.3 * min(self.width / columns, 0.8 * self.height)

    def _shapes(self, t: int) -> list[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
        """Window and what lies inside of every object on frame t."""
        rows, columns = self._cells()
        high, wide = self._radii()
        shapes = []
        for i in range(self.objects):
            row, column = divmod(i, columns)
            y = self.height / rows * (row + 0.5 + 0.15 * math.sin(0.11 * t + i))
            x = self.width / columns * (column + 0.5 + 0.15 * math.cos(0.083 * t + 2 * i))
            squeeze = 1 + 0.15 * math.sin(0.17 * t + i)
            ry, rx = high * squeeze / 1.15, wide * 0.85 / squeeze  # neither is ever larger than high, wide
            top, left = max(0, math.floor(y - ry)), max(0, math.floor(x - rx))
            window = slice(top, min(self.height, math.ceil(y + ry))), slice(left, min(self.width, math.ceil(x + rx)))
            v = (np.arange(window[0].start, window[0].stop)[:, None] + 0.5 - y) / ry
            u = (np.arange(window[1].start, window[1].stop)[None] + 0.5 - x) / rx
            shapes.append((window, v * v + u * u <= 1))
        return shapes


def _texture(height: int, width: int, seed: int) -> NDArray[np.float32]:
    """[height, width, 3] smooth noise of several scales in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for scale in (4, 16, 64):
        size = (max(2, min(height, height * scale // 480 + 2)), max(2, min(width, width * scale // 480 + 2)))
        noise = torch.rand(1, 3, *size, generator=generator)
        total += F.interpolate(noise, (height, width), mode="bilinear", align_corners=False) / math.sqrt(scale)
    total -= total.amin()
    total /= total.amax()
    return total[0].permute(1, 2, 0).contiguous().numpy()
