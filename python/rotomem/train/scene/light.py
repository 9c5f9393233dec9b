"""Light: photographs to scene-linear values, composited light to what the network sees.

Layers, blur and exposure act on linear light, as in a camera. The way back is that of inference
(`rotomem.io.colour`, transform "encode"): the sRGB curve, then a soft shoulder for plates that are scene-linear;
pictures that were display-referred to begin with are cut at 1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.io.colour import KNEE


@lru_cache(maxsize=4)
def _table(device: str) -> Tensor:
    x = torch.arange(256, dtype=torch.float64) / 255
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return linear.float().to(device)


def linearise(pixels: Tensor) -> Tensor:
    """sRGB-encoded bytes as linear light 0..1, float32 of the same shape."""
    return _table(str(pixels.device)).index_select(0, pixels.flatten().int()).view(pixels.shape)


def encode(linear: Tensor, *, shoulder: bool) -> Tensor:
    """Linear Rec.709 light, 0 or more, to display-referred 0..1; in place.

    shoulder   bend what is brighter than the knee so that it stays below 1, else cut it at 1
    """
    toe = (linear * 12.92).clamp_(max=12.92 * 0.0031308)
    # The power by logarithms, three times as fast; right of the knee it is above the toe, left of it below.
    out = linear.clamp_(min=0.0031308).log_().mul_(1 / 2.4).exp_().mul_(1.055).sub_(0.055 + 12.92 * 0.0031308)
    out = out.clamp_(min=0).add_(toe)
    if shoulder:
        room = 1 - KNEE
        excess = (out - KNEE).clamp_(min=0)
        out = out.clamp_(max=KNEE).add_(excess.mul_(room).div_(excess / room + room))
    return out.clamp_(0, 1)


def blur(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of [..., h, w], `sigma` pixels; the edges are continued.

    It is linear and its weights sum to 1, so what is done to the light may be done to the coverage.
    """
    reach = max(round(2.5 * sigma), 1)
    weights = [math.exp(-0.5 * (i / max(sigma, 1e-3)) ** 2) for i in range(-reach, reach + 1)]
    total = sum(weights)
    lead = x.shape[:-2]
    x = x.reshape(1, -1, *x.shape[-2:])
    for axis in (2, 3):
        side = x.shape[axis]
        padded = F.pad(x, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach), mode="replicate")
        x = padded.narrow(axis, 0, side) * (weights[0] / total)
        for i, weight in enumerate(weights[1:], 1):
            x.add_(padded.narrow(axis, i, side), alpha=weight / total)
    return x.view(*lead, *x.shape[-2:])


@lru_cache(maxsize=4)
def _cosines(device: str) -> Tensor:
    """[8, 8]: the orthonormal discrete cosine transform of eight samples."""
    k = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) * 0.5
    basis[0] *= 0.5**0.5
    return basis.float().to(device)


# Annex K of ITU-T T.81: the example quantisation tables for luminance and chrominance.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip


def _quantise(plane: Tensor, table: tuple[tuple[int, ...], ...], quality: float) -> Tensor:
    """[N, h, w] in 0..1, sides multiples of 8, through the quantised cosine transform of its 8 x 8 blocks."""
    scale = (50 / quality if quality < 50 else 2 - quality / 50) / 255
    step = (torch.tensor(table, device=plane.device) * scale).clamp_min(1 / 255)
    n, h, w = plane.shape
    d = _cosines(str(plane.device))
    blocks = plane.view(n, h // 8, 8, w // 8, 8).transpose(2, 3)
    coefficients = ((d @ blocks @ d.t()) / step).round_() * step
    return (d.t() @ coefficients @ d).transpose(2, 3).reshape(n, h, w)


def compress(image: Tensor, quality: float) -> Tensor:
    """What JPEG of this quality (1..100, chroma at half resolution) leaves of [N, 3, h, w], display-referred 0..1.

    Sides that are no multiples of 16 are continued to the next one.
    """
    n, _, h, w = image.shape
    down, right = -h % 16, -w % 16
    if down or right:
        image = F.pad(image, (0, right, 0, down), mode="replicate")
    r, g, b = image.unbind(1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    chroma = torch.cat([(b - luma) * 0.564, (r - luma) * 0.713])
    small = F.avg_pool2d(chroma[:, None], 2)[:, 0]
    luma = _quantise(luma - 0.5, _LUMA, quality) + 0.5
    small = _quantise(small, _CHROMA, quality)
    wide = F.interpolate(small[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
    blue, red = wide[:n] / 0.564, wide[n:] / 0.713
    r, b = luma + red, luma + blue
    g = (luma - 0.299 * r - 0.114 * b) / 0.587
    return torch.stack([r, g, b], 1)[:, :, :h, :w].clamp_(0, 1)
