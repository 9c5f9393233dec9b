"""A small XMem with seeded weights: fast enough to step hundreds of frames in a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rotomem.models.aot import AOT, AOTConfig
from rotomem.models.interface import VOSModel
from rotomem.models.stcn import STCN, STCNConfig
from rotomem.models.stm import STM, STMConfig
from rotomem.models.stremn import STReMN, STReMNConfig
from rotomem.models.xmem import XMem, XMemConfig

from .sixth import Sixth

TINY = XMemConfig(
    key_block="basic",
    key_stem=8,
    key_planes=(8, 12, 16),
    key_depths=(1, 1, 1),
    value_stem=8,
    value_planes=(8, 8, 12),
    value_depths=(1, 1, 1),
    key_dim=16,
    value_dim=16,
    sensory_dim=8,
    decoder=(16, 16, 8),
    update_dim=8,
)


def tiny_model(seed: int = 0) -> XMem:
    """Random weights, the memory's share made large enough that its mistakes would be seen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = XMem(TINY).eval()
    with torch.no_grad():
        model.key_proj.key_proj.weight.mul_(3)
        model.decoder.fuser.block1.conv1.weight[:, 16:].mul_(4)
        model.decoder.pred.weight.mul_(20)
    return model


def picture(t: int, height: int = 48, width: int = 64) -> NDArray[np.float32]:
    """[H, W, 3]: smooth waves that drift."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / 16
    waves = [np.sin(x * (1 + c) + 0.3 * t) * np.cos(y * (2 - c) + 0.1 * t * c) for c in range(3)]
    return (0.5 + 0.5 * np.stack(waves, -1)).astype(np.float32)


def labels(*objects: tuple[int, int, int, int], height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A label map with boxes (label, top, left, side)."""
    out = np.zeros((height, width), np.uint8)
    for label, top, left, side in objects:
        out[top : top + side, left : left + side] = label
    return out


def tiny_stcn(seed: int = 0) -> STCN:
    """As `tiny_model`, with one affinity and a memory that grows."""
    config = STCNConfig("basic", 8, (8, 12, 16), (1, 1, 1), 8, (8, 8, 12), (1, 1, 1), 16, 16, 16, (16, 16, 8))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = STCN(config).eval()
    with torch.no_grad():
        model.decoder.compress.conv1.weight[:, :16].mul_(4)
        model.decoder.pred.weight.mul_(20)
    return model


def tiny_stm(seed: int = 0) -> STM:
    """As `tiny_model`, with keys per object and the previous frame always in memory."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = STM(STMConfig("basic", 8, (8, 12, 16), (1, 1, 1), 16, 16, 16)).eval()
    with torch.no_grad():
        model.Decoder.convFM.weight[:, :16].mul_(4)
        model.Decoder.pred2.weight.mul_(20)
    return model


def tiny_stremn(weights: int = 0, **settings: Any) -> STReMN:
    """As `tiny_stm`, with a memory of six frames; nothing is too far away in pictures as small as a test's."""
    config = STReMNConfig("basic", 8, (8, 12, 16), (1, 1, 1), 16, 16, 16, update_dim=8, reach=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(weights)
        model = STReMN(replace(config, **settings)).eval()
    with torch.no_grad():
        model.decoder.convFM.weight[:, :16].mul_(4)
        model.decoder.pred2.weight.mul_(8)
    return model


class TinyEncoder(nn.Module):
    """Maps of MobileNetV2's widths at 1/4, 1/8, 1/16 and again 1/16, from five convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 24), (24, 32), (32, 96)))
        self.last = nn.Conv2d(96, 1280, 1)
        for conv in (*self.stages, self.last):  # so that norms later on have more than rounding errors to enlarge
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            x = torch.relu(stage(x))
            maps.append(x)
        return *maps[1:], self.last(x)


def tiny_aot(seed: int = 0, **settings: Any) -> AOT:
    """An AOST of two layers with a quick encoder, and few objects in a pass, so that there soon are several."""
    config = AOTConfig(
        layers=2, gated=True, scalable=True, width=32, heads=4, hidden=32, identities=3, objects_per_pass=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AOT(replace(config, **settings)).eval()
        model.encoder = TinyEncoder()
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(20)
    return model


MODELS: dict[str, Callable[[], VOSModel]] = {
    "xmem": tiny_model,
    "stcn": tiny_stcn,
    "stm": tiny_stm,
    "aost": tiny_aot,
    "stremn": tiny_stremn,
    "sixth": Sixth,
}
