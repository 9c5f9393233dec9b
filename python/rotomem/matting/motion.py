"""Where every pixel of a picture goes on the next: enough motion to ask whether a matte went with it.

Coarse-to-fine least squares over small windows (Lucas and Kanade, IJCAI 1981), on all colour channels, with the check
that the way there and back ends where it began. Not a network: it has no weights, and it says where it does not know.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.errors import ShapeError

Motion = NDArray[np.float32]
"""[H, W, 2]: (x, y) in pixels from where a pixel is on one frame to where it is on the next."""

WORKING_SIDE = 270
"""Pictures are reduced to about this shorter side first: finer motion costs more than it tells."""
_COARSEST = 20
_WINDOW = 9
_STEPS = 4


def estimate_motion(before: NDArray[Any], after: NDArray[Any]) -> tuple[Motion, NDArray[np.bool_]]:
    """Motion [H, W, 2] in pixels (x, y) from one picture to the next, and [H, W] where it can be trusted.

    before, after   [H, W, 3] float, 0..1
    trusted         going there and back ends within a pixel, or 5 % of the way, of the start, inside the picture

    Raises ShapeError where the pictures differ in size.
    """
    return estimate_motions(before, after)[0]


@torch.inference_mode()
def estimate_motions(
    before: NDArray[Any], after: NDArray[Any]
) -> tuple[tuple[Motion, NDArray[np.bool_]], tuple[Motion, NDArray[np.bool_]]]:
    """What `estimate_motion` gives from the first picture to the second, and from the second to the first."""
    if before.shape != after.shape or before.ndim != 3:
        raise ShapeError(f"pictures are {list(before.shape)} and {list(after.shape)}, expected [H, W, 3] twice")
    height, width = before.shape[:2]
    scale = max(1, round(min(height, width) / WORKING_SIDE))
    pair = [_reduced(torch.from_numpy(np.ascontiguousarray(p, np.float32)), scale) for p in (before, after)]
    there, back = _flow(pair[0], pair[1]), _flow(pair[1], pair[0])
    return _checked(there, back, height, width), _checked(back, there, height, width)


def _checked(there: Tensor, back: Tensor, height: int, width: int) -> tuple[Motion, NDArray[np.bool_]]:
    """Motion at the size of the pictures, and where going there and back ends at the start."""
    returned = there + _sample(back, there)
    tolerance = 1 + 0.05 * there.norm(dim=1, keepdim=True)
    trusted = (returned.norm(dim=1, keepdim=True) <= tolerance) & _inside(there)
    h, w = there.shape[-2:]
    motion = F.interpolate(there, (height, width), mode="bilinear", align_corners=False)
    motion *= torch.tensor([width / w, height / h]).view(1, 2, 1, 1)
    known = F.interpolate(trusted.float(), (height, width), mode="nearest-exact")[0, 0] > 0
    return motion[0].permute(1, 2, 0).contiguous().numpy(), known.numpy()


def _reduced(picture: Tensor, scale: int) -> Tensor:
    """[H, W, C] to [1, C, h, w], averaged over `scale` x `scale` pixels."""
    planes = picture.permute(2, 0, 1)[None]
    return F.avg_pool2d(planes, scale, ceil_mode=True, count_include_pad=False) if scale > 1 else planes


def _flow(a: Tensor, b: Tensor) -> Tensor:
    """Motion [1, 2, h, w] that brings every pixel of `a` to where it is in `b`, both [1, C, h, w]."""
    levels = max(0, int(math.log2(max(min(a.shape[-2:]) / _COARSEST, 1))))
    pyramid = [(a, b)]
    for _ in range(levels):
        pyramid.append(
            tuple(F.avg_pool2d(p, 2, ceil_mode=True, count_include_pad=False) for p in pyramid[-1])  # type: ignore[arg-type]
        )
    flow = a.new_zeros(1, 2, *pyramid[-1][0].shape[-2:])
    for first, second in reversed(pyramid):
        h, w = first.shape[-2:]
        if flow.shape[-2:] != (h, w):
            grown = torch.tensor([w / flow.shape[-1], h / flow.shape[-2]]).view(1, 2, 1, 1)
            flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False) * grown
        for _ in range(_STEPS):
            flow = _mean(flow + _step(first, _sample(second, flow)), 3)
    return flow


def _step(a: Tensor, b: Tensor) -> Tensor:
    """One least-squares step [1, 2, h, w], at most a pixel, from pictures that lie on each other but for a little."""
    mean = (a + b) / 2
    padded = F.pad(mean, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    gt = b - a
    products = [(p * q).sum(1) for p, q in ((gx, gx), (gx, gy), (gy, gy), (gx, gt), (gy, gt))]
    xx, xy, yy, xt, yt = _mean(torch.stack(products, 1), _WINDOW)[0]
    xx, yy = xx + 1e-5, yy + 1e-5  # flat windows stay where the coarser level put them
    determinant = xx * yy - xy * xy
    step = torch.stack([xy * yt - yy * xt, xy * xt - xx * yt]) / determinant
    return step.clamp(-1, 1)[None]


def _mean(maps: Tensor, window: int) -> Tensor:
    """Mean over a window, one axis after the other; fewer pixels at the border."""
    half = window // 2
    rows = F.avg_pool2d(maps, (window, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), 1, (0, half), count_include_pad=False)


def _places(flow: Tensor) -> Tensor:
    """Where every pixel goes, [1, h, w, 2] in pixels."""
    h, w = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return flow[0].permute(1, 2, 0)[None] + torch.stack([x, y], -1)


def _sample(maps: Tensor, flow: Tensor) -> Tensor:
    """`maps` [1, C, h, w] where the motion leads, bilinear, edges repeated."""
    h, w = flow.shape[-2:]
    grid = (_places(flow) * 2 + 1) / torch.tensor([w, h]) - 1
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def _inside(flow: Tensor) -> Tensor:
    """[1, 1, h, w] bool, whether a pixel stays in the picture."""
    h, w = flow.shape[-2:]
    places = _places(flow)
    x, y = places[..., 0], places[..., 1]
    return ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1))[:, None]
