"""A matte fitted to its picture where the network answers, and applied where the plate is sharp.

Around every pixel of a coarse raster alpha is taken for a linear function of colour (guided filter, He, Sun and Tang,
ECCV 2010, section 3.2, with a colour guide). The coefficients are few and smooth, so they are fitted on the
small raster and applied to the colours of the full plate (fast guided filter, He and Sun, 2015): an edge then runs
where the plate's edge runs. Only a band around soft alpha is touched.

On a dappled object, or before a background of its own colours, colour says little about alpha. So of the windows a
pixel lies in, those whose fit leaves little over count most (as in weighted aggregation, Ochotorena and Yamashita,
IEEE TIP 2020), and where even these leave most of the matte unexplained, the network's own stays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.matting.raster import part_of, resample

RADIUS = 2
EPSILON = 1e-4
"""Variance of a display-referred guide below which a window counts as flat."""
_LEFT_OVER = 1e-3
"""Variance of alpha that a window's fit may leave unexplained at little cost."""
_UNEXPLAINED = (0.3, 0.8)
"""Share of alpha's variance left unexplained up to which a fit is believed, and from which it is not."""
_SOFT = (0.05, 0.95)
_REACH = 4  # network pixels around soft alpha that the band takes in; as much again to fade out


class Fit(NamedTuple):
    """A matte as a function of colour.

    coefficients  [4, h/stride, w/stride]: alpha is the first three times the guide's colour, plus the fourth
    believed      [h, w] 0..1, how far
    """

    coefficients: Tensor
    believed: Tensor


def stride_of(scale: float) -> int:
    """Network pixels a sample of the fit, where a network pixel covers `scale` plate pixels along a side.

    Decoders answer at a quarter, and finer is only their enlarging; but where the plate shows little more than the
    network saw, thin parts of small objects are worth more than detail.
    """
    return 4 if scale >= 1.5 else 2


def fit(alpha: Tensor, guide: Tensor, stride: int) -> Fit:
    """What fits a matte best to its picture.

    alpha   [h, w] 0..1
    guide   [h, w, 3] display-referred 0..1
    """
    p, colour = _reduced(alpha[None], stride), _reduced(guide.permute(2, 0, 1), stride)
    r, g, b = colour
    squares = torch.stack([r * r, r * g, r * b, g * g, g * b, b * b])
    mean = box(torch.cat([p, colour, colour * p, squares, p * p]), RADIUS)
    mp, mr, mg, mb = mean[:4]
    rr, rg, rb = mean[7] - mr * mr + EPSILON, mean[8] - mr * mg, mean[9] - mr * mb
    gg, gb, bb = mean[10] - mg * mg + EPSILON, mean[11] - mg * mb, mean[12] - mb * mb + EPSILON
    cr, cg, cb = mean[4] - mr * mp, mean[5] - mg * mp, mean[6] - mb * mp
    # The inverse of a symmetric 3 x 3 matrix by its cofactors; EPSILON keeps it away from singular.
    i_rr, i_rg, i_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    i_gg, i_gb, i_bb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * i_rr + rg * i_rg + rb * i_rb
    a_r = (i_rr * cr + i_rg * cg + i_rb * cb) / determinant
    a_g = (i_rg * cr + i_gg * cg + i_gb * cb) / determinant
    a_b = (i_rb * cr + i_gb * cg + i_bb * cb) / determinant
    variance = (mean[13] - mp * mp).clamp(min=0)
    left = (variance - a_r * cr - a_g * cg - a_b * cb).clamp(min=0)
    told = torch.stack([a_r, a_g, a_b, mp - a_r * mr - a_g * mg - a_b * mb, left, variance, torch.ones_like(left)])
    told = box(told / (left + _LEFT_OVER), RADIUS)
    told = (told[:6] / told[6]).float()
    full, none = _UNEXPLAINED
    explained = ((none - told[4] / (told[5] + _LEFT_OVER)) / (none - full)).clamp(0, 1)
    h, w = alpha.shape
    return Fit(told[:4], _band(alpha) * part_of(explained[None], h, w, slice(None), slice(None))[0])


def _band(alpha: Tensor) -> Tensor:
    """What is near soft alpha [h, w]: 1 around it, 0 away from it, a ramp between."""
    soft = ((alpha > _SOFT[0]) & (alpha < _SOFT[1])).float()[None, None]
    return box(F.max_pool2d(soft, 2 * _REACH + 1, 1, _REACH)[0], _REACH)[0].float()


def apply(coefficients: Tensor, guide: Tensor) -> Tensor:
    """Alpha [H, W] 0..1 from coefficients [4, H, W] and a guide [H, W, 3].

    A fit is drawn towards its window's mean and hardly reaches 0 or 1 itself: the last twentieth counts as reached.
    """
    alpha = coefficients[3].clone()
    for channel in range(3):
        alpha.addcmul_(coefficients[channel], guide[..., channel])
    return alpha.sub_(_SOFT[0]).div_(_SOFT[1] - _SOFT[0]).clamp_(0, 1)


def box(planes: Tensor, radius: int) -> Tensor:
    """Means [C, h, w] float64 over squares, of fewer pixels at the border."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(planes.double()[None], (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)[0]


def _reduced(planes: Tensor, stride: int) -> Tensor:
    h, w = planes.shape[-2:]
    return resample(resample(planes, 1, -(-h // stride)), 2, -(-w // stride)).double()
