"""Resampling with weights that sum to 1: averages where a raster shrinks, bilinear where it grows, any part of it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def taps(size: int, new: int) -> tuple[Tensor, Tensor]:
    """Which inputs [new, K] each output along one axis is made of, and their weights [new, K], rows summing to 1."""
    step = size / new
    at = torch.arange(new, dtype=torch.float64)
    if new < size:
        start, stop = at * step, (at + 1) * step
        first = start.floor()
        count = int((stop.ceil() - first).max())
        index = first[:, None] + torch.arange(count, dtype=torch.float64)
        weight = (torch.minimum(index + 1, stop[:, None]) - torch.maximum(index, start[:, None])).clamp(min=0)
    else:
        centre = (at + 0.5) * step - 0.5
        first = centre.floor()
        index = torch.stack([first, first + 1], 1)
        weight = torch.stack([1 - (centre - first), centre - first], 1)
    index = index.clamp(0, size - 1)
    weight = weight / weight.sum(1, keepdim=True)
    return index.long(), weight.float()


def resample(picture: Tensor, axis: int, new: int, part: slice = slice(None)) -> Tensor:
    """A picture with `new` samples along one axis, float32; of these only a part."""
    size = picture.shape[axis]
    if size == new:
        return picture[(slice(None),) * axis + (part,)].float()
    index, weight = (t[part].to(picture.device) for t in taps(size, new))
    shape = [1] * picture.ndim
    shape[axis] = len(index)
    total: Tensor | None = None
    for k in range(index.shape[1]):  # in order, so that the sum is the same on every run
        share = picture.index_select(axis, index[:, k]).float() * weight[:, k].reshape(shape)
        total = share if total is None else total.add_(share)
    assert total is not None
    return total


def part_of(planes: Tensor, height: int, width: int, rows: slice, columns: slice) -> Tensor:
    """Rows and columns of what planes [C, h, w] are at `height` x `width`: [C, rows, columns] float32."""
    return resample(resample(planes, 1, height, rows), 2, width, columns)
