"""Swin transformer to stride 16 (Liu et al. 2021), in the published checkpoints' parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _relative_index(side: int) -> Tensor:
    """[side^2, side^2] int64: row of the bias table for query q and key k, from q - k along both axes."""
    at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
    offset = at[:, :, None] - at[:, None] + side - 1
    return offset[0] * (2 * side - 1) + offset[1]


class WindowAttention(nn.Module):
    """Attention within windows of side x side positions, with a learned bias per offset and head."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _relative_index(side))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B*windows, side^2, C]; mask [windows, side^2, side^2] added to the scores, or None."""
        n, places, c = x.shape
        q, k, v = self.qkv(x).view(n, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        table = self.relative_position_bias_table[cast(Tensor, self.relative_position_index)]
        bias = table.permute(2, 0, 1)[None]  # [1, heads, places, places]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(n // mask.shape[0], 1, 1, 1)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.proj(read.transpose(1, 2).reshape(n, places, c))
        return out


class _MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """Windowed attention and a feed-forward network; every second block cuts its windows half a window further."""

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, side)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _MLP(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, y, x, C]; mask as `_shift_mask` has it."""
        _, h, w, _ = x.shape
        side = self.side
        # Padded after the norm: places beyond the picture hold zeros, and are attended to as in the published code.
        y = F.pad(self.norm1(x), (0, 0, 0, -w % side, 0, -h % side))
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = _joined(self.attn(_windows(y, side), mask if self.shift else None), side, *y.shape[1:3])
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y[:, :h, :w]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def _windows(x: Tensor, side: int) -> Tensor:
    """[B, y, x, C] to [B*windows, side^2, C]."""
    b, h, w, c = x.shape
    cut = x.view(b, h // side, side, w // side, side, c)
    return cut.transpose(2, 3).reshape(-1, side * side, c)


def _joined(windows: Tensor, side: int, h: int, w: int) -> Tensor:
    """`_windows` the other way round."""
    cut = windows.view(-1, h // side, w // side, side, side, windows.shape[-1])
    return cut.transpose(2, 3).reshape(-1, h, w, windows.shape[-1])


def _shift_mask(h: int, w: int, side: int, shift: int, like: Tensor) -> Tensor:
    """[windows, side^2, side^2]: -100 between places that only the roll made neighbours, else 0."""

    def regions(n: int) -> Tensor:
        n += -n % side
        at = torch.arange(n, device=like.device)
        return (at >= n - side).long() + (at >= n - shift).long()

    region = 3 * regions(h)[:, None] + regions(w)
    label = _windows(region[None, :, :, None], side)[..., 0]
    return torch.zeros((), device=like.device).where(label[:, :, None] == label[:, None], -100.0).to(like.dtype)


class PatchMerging(nn.Module):
    """Half the raster: four neighbours' channels side by side, normed, to twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        four = [x[:, r::2, c::2] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))]
        out: Tensor = self.reduction(self.norm(torch.cat(four, 3)))
        return out


class SwinStage(nn.Module):
    """Blocks of one raster, then the merging that leads to the next."""

    def __init__(self, width: int, depth: int, heads: int, side: int, merge: bool) -> None:
        super().__init__()
        self.side = side
        self.blocks = nn.ModuleList(SwinBlock(width, heads, side, side // 2 * (i % 2)) for i in range(depth))
        self.downsample = PatchMerging(width) if merge else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, y, x, C] before the merging."""
        mask = _shift_mask(x.shape[1], x.shape[2], self.side, self.side // 2, x)
        for block in self.blocks:
            x = block(x, mask)
        return x


class _PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class Swin(nn.Module):
    """[B, 3, h, w] to normed features at 1/4, 1/8 and 1/16, and the last once more; the defaults are Swin-B."""

    def __init__(
        self, width: int = 128, depths: Sequence[int] = (2, 2, 18), heads: Sequence[int] = (4, 8, 16), side: int = 7
    ) -> None:
        super().__init__()
        stages = len(depths)
        widths = [width << i for i in range(stages)]
        self.widths = (*widths, widths[-1])
        self.patch_embed = _PatchEmbed(width)
        self.layers = nn.ModuleList(
            SwinStage(widths[i], depths[i], heads[i], side, merge=i + 1 < stages) for i in range(stages)
        )
        for i in range(stages):
            self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(x)
        out = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            out.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = cast(PatchMerging, stage.downsample)(x)
        return (*out, out[-1])
