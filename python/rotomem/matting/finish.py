"""One object's matte from the network's raster to the plate's: steadied, cleaned, fitted to the picture, dressed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.matting import guided
from rotomem.matting.boxes import runs
from rotomem.matting.edges import choke, despeckle, feather, fill_holes
from rotomem.matting.raster import part_of
from rotomem.matting.settings import EdgeSettings
from rotomem.matting.stabilise import Neighbour, stabilise

_TILE = 32  # network pixels

Pixels = Callable[[slice, slice], NDArray[np.float32]]
"""Rows and columns of the plate [rows, columns, 3], display-referred as the network sees it."""


def finish(
    alpha: NDArray[np.float32],
    settings: EdgeSettings,
    *,
    size: tuple[int, int],
    pixel_aspect: float = 1.0,
    picture: Tensor | None = None,
    pixels: Pixels | None = None,
    neighbours: Sequence[Neighbour] = (),
) -> NDArray[np.float32]:
    """One object's matte at plate resolution.

    In this order: stabilise, despeckle, fill holes (all at the network's raster, where specks are made), enlarge and
    fit to the plate, choke, feather.

    alpha         [h, w] probabilities 0..1 at the network's raster
    size          (H, W) of what the raster covers, in plate pixels
    pixel_aspect  width of a plate pixel over its height
    picture       [h, w, 3] what the network saw; None, or no `pixels`: nothing is fitted
    pixels        gives the plate where it is asked for
    neighbours    what `stabilise` leans on
    returns       [H, W] float32 0..1

    Scratch memory: a few times [H, W], whatever the number of objects. The same on any number of threads.
    """
    (h, w), (height, width) = alpha.shape, size
    alpha = stabilise(alpha, neighbours, settings.stabilise)
    sample = (height / h) * (width / w) * pixel_aspect  # plate pixels, by their height, that a sample covers
    if settings.despeckle:
        alpha = despeckle(alpha, math.pi / 4 * settings.despeckle**2 / sample)
    if settings.fill_holes:
        alpha = fill_holes(alpha, math.pi / 4 * settings.fill_holes**2 / sample)
    fitted = settings.edge == "guided" and picture is not None and pixels is not None
    large = _enlarged(torch.from_numpy(alpha), size, picture if fitted else None, pixels)
    return feather(choke(large, settings.choke, pixel_aspect), settings.feather, pixel_aspect)


def _enlarged(
    alpha: Tensor, size: tuple[int, int], picture: Tensor | None, pixels: Pixels | None
) -> NDArray[np.float32]:
    """The matte at plate resolution, tile by tile; only tiles with an edge cost something."""
    (h, w), (height, width) = alpha.shape, size
    out = np.zeros(size, np.float32)
    fit = None if picture is None else guided.fit(alpha, picture, guided.stride_of(height / h))
    most, least = _tiles(alpha), -_tiles(-alpha)
    in_band = None if fit is None else _tiles(fit.believed) > 0
    work = (most > least) | ((most > 0) & (most < 1))
    if in_band is not None:
        work |= in_band
    for y, x in runs((most > 0).numpy() & ~work.numpy()):
        out[_part(y, y + 1, h, height), _part(x.start, x.stop, w, width)] = 1
    for y, x in runs(work.numpy()):
        rows, columns = _part(y, y + 1, h, height), _part(x.start, x.stop, w, width)
        large = part_of(alpha[None], height, width, rows, columns)[0]
        if fit is not None and in_band is not None and bool(in_band[y, x].any()):
            assert pixels is not None
            guide = torch.from_numpy(pixels(rows, columns))
            refined = guided.apply(part_of(fit.coefficients, height, width, rows, columns), guide)
            large.addcmul_(part_of(fit.believed[None], height, width, rows, columns)[0], refined - large)
        out[rows, columns] = large.numpy()
    return np.clip(out, 0, 1, out=out)


def _tiles(plane: Tensor) -> Tensor:
    """The most that a plane [h, w] is in every tile and one pixel around."""
    around = F.max_pool2d(plane[None, None], 3, 1, 1)
    return F.max_pool2d(around, _TILE, _TILE, ceil_mode=True)[0, 0]


def _part(first: int, last: int, samples: int, pixels: int) -> slice:
    """Plate pixels of tiles first..last along one axis."""
    return slice(first * _TILE * pixels // samples, min(last * _TILE * pixels // samples, pixels))
