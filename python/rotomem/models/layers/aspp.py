"""Atrous spatial pyramid pooling (Chen et al. 2018, DeepLabv3+): one map looked at over several distances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.norm import group_norm

RATES = (6, 12, 18)
"""Distances of the published module at stride 16, in positions."""


class ASPP(nn.Module):
    """A 1x1, a dilated 3x3 per rate and the mean over the picture, joined and brought back to `dim` channels."""

    def __init__(self, dim: int, rates: Sequence[int] = RATES) -> None:
        super().__init__()
        shapes = [(1, 1), *((3, rate) for rate in rates)]
        self.branches = nn.ModuleList(_branch(dim, dim, kernel, rate) for kernel, rate in shapes)
        self.mean = nn.Conv2d(dim, dim, 1)
        self.join = _branch(dim * (len(shapes) + 1), dim, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, y, x] to the same shape."""
        mean = F.relu(self.mean(x.mean((2, 3), keepdim=True))).expand_as(x)
        return self.join(torch.cat([*(branch(x) for branch in self.branches), mean], 1))


def _branch(in_dim: int, out_dim: int, kernel: int, rate: int) -> nn.Sequential:
    conv = nn.Conv2d(in_dim, out_dim, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    return nn.Sequential(conv, group_norm(out_dim), nn.ReLU())
