"""Where textures lie on the screen.

Screen and texture coordinates run over -1..1 between the outer edges of the outermost pixels, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=32)
def _basis(controls: int, size: int) -> Tensor:
    """[size, controls]: a smooth line through `controls` values, sampled at `size` pixels."""
    eye = torch.eye(controls).view(1, 1, controls, controls)
    line = F.interpolate(eye, (size, controls), mode="bicubic", align_corners=True)
    return line[0, 0].contiguous()


@dataclass(frozen=True)
class Window:
    """The rows and columns of a picture that something touches."""

    rows: slice
    columns: slice

    def of(self, picture: Tensor) -> Tensor:
        """That part of a picture [..., h, w]: a view."""
        return picture[..., self.rows, self.columns]

    def grown(self, pixels: int, size: int) -> Window:
        """The window and so many pixels about it, within a picture of side `size`."""
        return Window(
            *(slice(max(s.start - pixels, 0), min(s.stop + pixels, size)) for s in (self.rows, self.columns))
        )


EVERYWHERE = Window(slice(None), slice(None))


def smooth_field(control: Tensor, size: int, window: Window = EVERYWHERE) -> Tensor:
    """Values on a coarse grid [..., K, K] as a smooth field [..., size, size], or a window of it."""
    basis = _basis(control.shape[-1], size).to(control.device)
    field: Tensor = basis[window.rows] @ control @ basis[window.columns].t()
    return field


@lru_cache(maxsize=16)
def _screen(size: int, device: str) -> Tensor:
    line = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).to(device)


def screen(size: int, device: torch.device) -> Tensor:
    """Pixel centres [size, size, 2]; shared, not to be written to."""
    return _screen(size, str(device))


def rotation(angle: Tensor) -> Tensor:
    """Angles [...] as matrices [..., 2, 2]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


@dataclass(frozen=True)
class Hinge:
    """A texture folds about a joint: what lies beyond a line through `pivot` turns around it.

    pivot   [B, 2] in the texture
    normal  [B, 2], unit, towards the part that turns
    angle   [B, T] radians
    """

    pivot: Tensor
    normal: Tensor
    angle: Tensor

    def __call__(self, at: Tensor) -> Tensor:
        """Texture coordinates [B, T, h, w, 2] before the fold to those after it."""
        arm = at - self.pivot[:, None, None, None]
        beyond = ((arm * self.normal[:, None, None, None]).sum(-1) * 4).clamp(0, 1)
        angle = beyond * self.angle[:, :, None, None]
        cos, sin = angle.cos(), angle.sin()
        x, y = arm.unbind(-1)
        return torch.stack([cos * x - sin * y, sin * x + cos * y], -1) + self.pivot[:, None, None, None]


@dataclass(frozen=True)
class Placement:
    """Where a texture lies in every frame: texture = hinge((matrix @ screen + offset) / (1 + tilt . screen) + bend).

    matrix [B, T, 2, 2], offset [B, T, 2], tilt [B, T, 2], bend [B, T, 2, K, K] on a coarse grid or None
    """

    matrix: Tensor
    offset: Tensor
    tilt: Tensor
    bend: Tensor | None
    hinge: Hinge | None = None

    def grid(self, size: int, window: Window = EVERYWHERE) -> Tensor:
        """Texture coordinates of every pixel of the window, [B, T, h, w, 2]."""
        line = screen(size, self.matrix.device)[0, :, 0]
        x, y = line[window.columns], line[window.rows, None]
        m = self.matrix[..., None, None]
        offset, tilt = self.offset[..., None, None], self.tilt[..., None, None]
        depth = tilt[:, :, 0] * x + (tilt[:, :, 1] * y + 1)
        at = depth.new_empty(*depth.shape, 2)
        for i in (0, 1):
            torch.div(m[:, :, i, 0] * x + (m[:, :, i, 1] * y + offset[:, :, i]), depth, out=at[..., i])
        if self.bend is not None:
            at += smooth_field(self.bend, size, window).movedim(2, -1)
        return at if self.hinge is None else self.hinge(at)

    def window(self, size: int, cells: int = 32) -> Window | None:
        """Where the texture's square falls on the screen in any frame; None where it falls beside it.

        Found on a grid of cells, with one cell to spare; on a GPU, where looking costs more than drawing, everywhere.
        """
        if self.matrix.device.type != "cpu":
            return Window(slice(0, size), slice(0, size))
        cells = min(cells, size)
        inside = (self.grid(cells).abs().amax(-1) < 1.05).flatten(0, 1).any(0)
        spans = []
        for line in (inside.any(1), inside.any(0)):
            hit = line.nonzero()[:, 0].tolist()
            if not hit:
                return None
            spans.append(slice(max(hit[0] - 1, 0) * size // cells, -(-min(hit[-1] + 2, cells) * size // cells)))
        return Window(*spans)


def sample(texture: Tensor, grid: Tensor, padding: str) -> Tensor:
    """A texture where `grid` [B, T, h, w, 2] asks, as [B, T, C, h, w].

    texture   [B, C, S, S], the same in every frame, or [B, T, C, S, S]
    """
    b, t, h, w = grid.shape[:4]
    if texture.dim() == 5:
        moving = F.grid_sample(texture.flatten(0, 1), grid.flatten(0, 1), padding_mode=padding, align_corners=False)
        return moving.unflatten(0, (b, t))
    out = F.grid_sample(texture, grid.reshape(b, t * h, w, 2), padding_mode=padding, align_corners=False)
    return out.view(b, -1, t, h, w).transpose(1, 2)
