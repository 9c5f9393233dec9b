"""Blocks of the STM line's decoders and fusers (STCN, XMem), in the published parameter names.

Tensors are [B, C, y, x] for what belongs to the frame and [B, O, C, y, x] for what belongs to its objects.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.convolution import add_frame, apart, convolve, convolve_both, merged


def per_object(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a 2-D layer on [B, O, C, y, x], objects counted as batch."""
    return apart(layer(merged(x)), x.shape[1])


AT_ONCE = 2**20
"""Positions at stride 4, over objects, that are decoded at once: some 3 GB of activations in XMem's published widths.
All objects of a 1080p frame are fewer but for the ninth; of 4K it is two objects."""


def object_groups(objects: int, finest: Tensor) -> list[slice]:
    """Objects to be decoded together, given a feature map [B, C, y, x] of the frame at stride 4.

    Objects do not see each other between the readout and the aggregation, so groups change nothing but memory.
    """
    size = max(1, AT_ONCE // max(1, finest.shape[0] * finest.shape[-2] * finest.shape[-1]))
    return [slice(i, i + size) for i in range(0, objects, size)]


class ResBlock(nn.Module):
    """conv2(relu(conv1(relu(x)))) + shortcut; no norm. The shortcut is a 3x3 on x itself where widths differ."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.downsample = None if in_dim == out_dim else nn.Conv2d(in_dim, out_dim, 3, padding=1)
        self.conv1 = nn.Conv2d(in_dim, out_dim, 3, padding=1)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return convolve(self.conv2, convolve(self.conv1, F.relu(x), relu=True), add=shortcut)

    def fused(self, frame: Tensor, objects: Tensor, *, objects_first: bool = False) -> Tensor:
        """The block on cat[frame, objects], or the reverse, the frame's share computed once for all objects.

        frame [B, CF, y, x], objects [B, O, CO, y, x]; returns [B, O, C, y, x]
        """
        assert self.downsample is not None
        flat, o = merged(objects), objects.shape[1]
        if frame.is_contiguous(memory_format=torch.channels_last):  # to join two layouts takes ten times as long
            flat = flat.contiguous(memory_format=torch.channels_last)
        shortcut = convolve_both(self.downsample, frame, flat, o, objects_first=objects_first)
        out = convolve_both(self.conv1, F.relu(frame), F.relu(flat), o, objects_first=objects_first, relu=True)
        return apart(convolve(self.conv2, out, add=shortcut), o)


class ChannelGate(nn.Module):
    """sigmoid(mlp(mean) + mlp(max)) per channel (CBAM, Woo et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(gate)[:, :, None, None]


class _SpatialConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)


class SpatialGate(nn.Module):
    """sigmoid(7x7 conv of [max, mean] over channels) per position (CBAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = _SpatialConv()

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial.conv(pooled))


class CBAM(nn.Module):
    """Channel gate, then spatial gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class FeatureFusion(nn.Module):
    """Frame features and object features to one map per object: g = block1(cat); g = block2(g + CBAM(g))."""

    def __init__(self, frame_dim: int, object_dim: int, out_dim: int, *, objects_first: bool = False) -> None:
        super().__init__()
        self.objects_first = objects_first
        self.block1 = ResBlock(frame_dim + object_dim, out_dim)
        self.attention = CBAM(out_dim)
        self.block2 = ResBlock(out_dim, out_dim)

    def forward(self, frame: Tensor, objects: Tensor) -> Tensor:
        """frame [B, CF, y, x], objects [B, O, CO, y, x]; returns [B, O, C, y, x]."""
        g = merged(self.block1.fused(frame, objects, objects_first=self.objects_first))
        return apart(self.block2(g + self.attention(g)), objects.shape[1])


class UpsampleBlock(nn.Module):
    """Twice the raster, with the frame's finer features added; the skip convolution runs once a frame."""

    def __init__(self, skip_dim: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_dim, in_dim, 3, padding=1)
        self.out_conv = ResBlock(in_dim, out_dim)

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        """skip [B, CS, 2y, 2x], g [B, O, CI, y, x]; returns [B, O, CO, 2y, 2x]."""
        up = F.interpolate(merged(g), scale_factor=2, mode="bilinear", align_corners=False)
        return apart(self.out_conv(add_frame(up, self.skip_conv(skip))), g.shape[1])
