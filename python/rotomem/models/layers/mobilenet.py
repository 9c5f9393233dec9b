"""MobileNetV2 at stride 16 (Sandler et al. 2018), in the published checkpoints' parameter names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from rotomem.models.layers.norm import FrozenBatchNorm2d

# expansion, channels, blocks, stride, dilation of all but the first block. The last two groups keep the raster that
# the classifier would halve, and widen their kernels instead.
_GROUPS = ((1, 16, 1, 1, 1), (6, 24, 2, 2, 1), (6, 32, 3, 2, 1), (6, 64, 4, 2, 1), (6, 96, 3, 1, 1))
_DILATED = ((6, 160, 3, 1, 2), (6, 320, 1, 1, 2))
_ENDS = (4, 7, 14, 19)  # where the features at 1/4, 1/8, 1/16 and the last ones leave


def _conv(
    in_dim: int, out_dim: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = (kernel - 1) // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(in_dim, out_dim, kernel, stride, padding, dilation, groups, bias=False),
        FrozenBatchNorm2d(out_dim),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation; a shortcut where shapes allow."""

    def __init__(self, in_dim: int, out_dim: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        hidden = in_dim * expansion
        self.shortcut = stride == 1 and in_dim == out_dim
        self.conv = nn.Sequential(
            *([_conv(in_dim, hidden, 1)] if expansion != 1 else []),
            _conv(hidden, hidden, 3, stride, dilation, groups=hidden),
            nn.Conv2d(hidden, out_dim, 1, bias=False),
            FrozenBatchNorm2d(out_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


def _blocks() -> Iterator[nn.Module]:
    yield _conv(3, 32, 3, stride=2)
    width = 32
    for group in (*_GROUPS, *_DILATED):
        expansion, channels, count, stride, dilation = group
        for i in range(count):
            # The first block of the first dilated group still looks at its neighbours.
            spread = dilation if i or group == _DILATED[1] else 1
            yield InvertedResidual(width, channels, stride if i == 0 else 1, spread, expansion)
            width = channels
    yield _conv(width, 1280, 1)


class MobileNetV2(nn.Module):
    """[B, 3, h, w] to features of 24, 32, 96 and 1280 channels at 1/4, 1/8, 1/16 and 1/16."""

    widths = (24, 32, 96, 1280)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_blocks())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = []
        start = 0
        for end in _ENDS:
            x = cast(nn.Sequential, self.features[start:end])(x)
            out.append(x)
            start = end
        return tuple(out)
