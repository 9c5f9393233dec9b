"""ResNet to stride 16, in the published checkpoints' parameter names (He et al. 2016; stride on the 3x3)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from torch import Tensor, nn

from rotomem.models.layers.convolution import convolve


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; `conv_bias` where a checkpoint has biases before its norms (STCN)."""

    expansion = 1
    norm_of = MappingProxyType({"conv1": "bn1", "conv2": "bn2"})

    def __init__(self, inplanes: int, planes: int, stride: int = 1, conv_bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inplanes, planes, stride, conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = convolve(self.conv1, x, norm=self.bn1, relu=True)
        return convolve(self.conv2, out, norm=self.bn2, add=shortcut, relu=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; four times as wide outside as inside."""

    expansion = 4
    norm_of = MappingProxyType({"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"})

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
        shortcut = x if self.downsample is None else self.downsample(x)
        out = convolve(self.conv1, x, norm=self.bn1, relu=True)
        out = convolve(self.conv2, out, norm=self.bn2, relu=True)
        return convolve(self.conv3, out, norm=self.bn3, add=shortcut, relu=True)


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
