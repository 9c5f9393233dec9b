"""Encoders that STCN and XMem share, in the published parameter names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.blocks import FeatureFusion, object_groups
from rotomem.models.layers.convolution import apart, convolve, convolve_both, merged
from rotomem.models.layers.resnet import BLOCKS, make_stage, out_widths


class KeyEncoder(nn.Module):
    """Frame to features at strides 16, 8, 4. The published names are mixed: res2, layer2, layer3."""

    norm_of = MappingProxyType({"conv1": "bn1"})

    def __init__(self, block: str, stem: int, planes: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        kind = BLOCKS[block]
        w2, w3, _ = out_widths(block, planes)
        p2, p3, p4 = planes
        d2, d3, d4 = depths
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.res2 = make_stage(kind, stem, p2, d2, 1)
        self.layer2 = make_stage(kind, w2, p3, d3, 2)
        self.layer3 = make_stage(kind, w3, p4, d4, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image [B, 3, h, w] normalised; returns f16, f8, f4."""
        x = F.max_pool2d(convolve(self.conv1, image, norm=self.bn1, relu=True), 3, 2, 1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class ValueEncoder(nn.Module):
    """Frame and mask of one object to its value: a ResNet of basic blocks on five channels, then a fuser.

    conv_bias       STCN has biases before its norms, XMem has none
    objects_first   the order in which object and frame features meet in the fuser: STCN's, not XMem's
    """

    norm_of = MappingProxyType({"conv1": "bn1"})

    def __init__(
        self,
        stem: int,
        planes: Sequence[int],
        depths: Sequence[int],
        f16_dim: int,
        value_dim: int,
        *,
        conv_bias: bool = False,
        objects_first: bool = False,
    ) -> None:
        super().__init__()
        basic = BLOCKS["basic"]
        p2, p3, p4 = planes
        d2, d3, d4 = depths
        self.conv1 = nn.Conv2d(5, stem, 7, 2, 3, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = make_stage(basic, stem, p2, d2, 1, conv_bias)
        self.layer2 = make_stage(basic, p2, p3, d3, 2, conv_bias)
        self.layer3 = make_stage(basic, p3, p4, d4, 2, conv_bias)
        self.fuser = FeatureFusion(f16_dim, p4, value_dim, objects_first=objects_first)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """image [B, 3, h, w] normalised, f16 [B, C, y, x], masks [B, O, h, w]; returns [B, O, CV, y, x]."""
        o = masks.shape[1]
        others = masks.sum(1, keepdim=True) - masks
        if o == 1:
            others = torch.zeros_like(masks)
        groups = object_groups(o, image[:, :, ::4, ::4])
        parts = [self._encode(image, f16, masks[:, g], others[:, g]) for g in groups]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _encode(self, image: Tensor, f16: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        o = masks.shape[1]
        pairs = merged(torch.stack([masks, others], 2))
        g = F.max_pool2d(convolve_both(self.conv1, image, pairs, o, norm=self.bn1, relu=True), 3, 2, 1)
        g = self.layer3(self.layer2(self.layer1(g)))
        return self.fuser(f16, apart(g, o))


def stage_depth(keys: Iterable[str], stage: str) -> int:
    """Blocks in a stage of a checkpoint, its name given with the dot. Raises ValueError where there is none."""
    return 1 + max(int(k[len(stage) :].split(".")[0]) for k in keys if k.startswith(stage))
