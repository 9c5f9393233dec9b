"""ResNet to stride 16, in the published checkpoints' parameter names (He et al. 2016; stride on the 3x3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; `conv_bias` where a checkpoint has biases before its norms (STCN)."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1, conv_bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inplanes, planes, stride, conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; four times as wide outside as inside."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1, conv_bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=conv_bias)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = _shortcut(inplanes, planes * 4, stride, conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inplanes: int, planes: int, stride: int, conv_bias: bool) -> nn.Sequential | None:
    if stride == 1 and inplanes == planes:
        return None
    return nn.Sequential(
        nn.Conv2d(inplanes, planes, 1, stride, bias=conv_bias),
        nn.BatchNorm2d(planes),
    )


def make_stage(
    block: type[BasicBlock] | type[Bottleneck],
    inplanes: int,
    planes: int,
    depth: int,
    stride: int,
    conv_bias: bool = False,
) -> nn.Sequential:
    """`depth` blocks, the first of which halves the raster where `stride` is 2."""
    blocks = [block(inplanes, planes, stride, conv_bias)]
    blocks += [block(planes * block.expansion, planes, 1, conv_bias) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def out_widths(block: str, planes: Sequence[int]) -> tuple[int, ...]:
    """Channels that leave each stage."""
    return tuple(p * BLOCKS[block].expansion for p in planes)
