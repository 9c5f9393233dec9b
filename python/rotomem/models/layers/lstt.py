"""Long short-term transformer blocks (AOT, Yang et al. 2021, section 4; AOST, sections 3.4 and 3.5).

Tokens are [B, N, C] with N = y*x positions of the feature map, row by row; C is the width of the model. All objects
of one pass share every token: what differs from object to object lies in the identity embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.norm import as_map, as_tokens


@dataclass(frozen=True)
class Tokens:
    """Keys and values [B, N, C] of one or several frames, in one block."""

    key: Tensor
    value: Tensor


def sine_positions(y: int, x: int, width: int, *, like: Tensor) -> Tensor:
    """Sine embedding [1, y*x, width] of the positions of a map: half the channels for rows, half for columns.

    Angles run from 0 to 2 pi over each side, divided by 10000^(2*floor(j/2)/half) for channel j; even channels are
    sines, odd ones cosines. Computed in float32.
    """
    half = width // 2
    channel = torch.arange(half, dtype=torch.float32, device=like.device)
    period = 10000 ** (2 * torch.div(channel, 2, rounding_mode="floor") / half)

    def along(n: int) -> Tensor:
        at = torch.arange(n, dtype=torch.float32, device=like.device) / (n - 1 + 1e-6) * (2 * math.pi)
        angle = at[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1)

    rows = along(y)[:, None].expand(y, x, half)
    columns = along(x)[None].expand(y, x, half)
    return torch.cat([rows, columns], 2).reshape(1, y * x, width).to(like.dtype)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """[B, N, C] as [B, heads, N, C/heads]."""
    b, n, c = tokens.shape
    return tokens.view(b, n, heads, c // heads).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of [B, N, C] to [B, M, C], scores scaled by 1/sqrt(C/heads); returns [B, N, C]."""
    read = F.scaled_dot_product_attention(_split(query, heads), _split(key, heads), _split(value, heads))
    return read.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention within a frame: positions are part of query and key, not of the value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_Q = nn.Linear(width, width)
        self.linear_K = nn.Linear(width, width)
        self.linear_V = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        placed = x + positions
        read = attend(self.linear_Q(placed), self.linear_K(placed), self.linear_V(x), self.heads)
        out: Tensor = self.projection(read)
        return out


class LongTermAttention(nn.Module):
    """What follows attention to every position of every remembered frame; the attention itself is the memory's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width)

    def forward(self, read: Tensor) -> Tensor:
        out: Tensor = self.projection(read)
        return out


class ShortTermAttention(nn.Module):
    """Attention to the positions of the previous frame within `reach` of one's own, with learned relative terms.

    A query at (y, x) compares with the keys at (y+dy, x+dx), |dy| and |dx| <= reach, in window place
    (dy+reach)*side + dx+reach, side = 2*reach+1:
        score = query . key / sqrt(C/heads) + relative_emb_k(query)[place]
        out   = sum_place softmax(score) * (value + relative_emb_v[place])
    Places outside of the map take no part. `relative_emb_k` sees the query unscaled.

    Rows of queries meet whole rows of keys in a matrix product, of which the band |dx| <= reach is kept: products are
    wasted, but memory is O(N*(side^2 + x)) and nothing of size N x N is ever made.
    """

    def __init__(self, width: int, heads: int, reach: int = 7) -> None:
        super().__init__()
        self.heads = heads
        self.reach = reach
        self.side = 2 * reach + 1
        places = self.side**2
        self.relative_emb_k = nn.Conv2d(width, heads * places, 1, groups=heads)
        self.relative_emb_v = nn.Parameter(torch.zeros(heads, width // heads, places))
        self.projection = nn.Linear(width, width)

    def forward(self, query: Tensor, memory: Tokens, y: int, x: int) -> Tensor:
        """query [B or 1, y*x, C] and memory [B, y*x, C]; returns [B, y*x, C]."""
        query = query.expand_as(memory.key)
        b, _, c = query.shape
        n, d, side, reach = b * self.heads, c // self.heads, self.side, self.reach

        def rows(tokens: Tensor) -> Tensor:  # [B, y*x, C] as [B*heads, y, x, C/heads]
            return _split(tokens, self.heads).reshape(n, y, x, d)

        margin = (0, 0, reach, reach, reach, reach)
        key, value = F.pad(rows(memory.key), margin), F.pad(rows(memory.value), margin)
        scaled = rows(query) / math.sqrt(d)
        scores = torch.stack(
            [_band(scaled @ key[:, dy : dy + y].transpose(2, 3), side) for dy in range(side)], 3
        )  # [n, y, x, dy, dx]
        bias = self.relative_emb_k(as_map(query, y, x)).reshape(n, side * side, y, x)
        scores = scores.flatten(3) + bias.permute(0, 2, 3, 1)
        scores = scores.masked_fill(_outside(y, x, reach, query.device), -math.inf)
        precise = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(3, dtype=precise).to(value.dtype)
        relative = self.relative_emb_v.transpose(1, 2)  # [heads, places, d]
        out = (weights.reshape(b, self.heads, y * x, -1) @ relative).reshape(n, y, x, d)
        bands = weights.unflatten(3, (side, side))
        for dy in range(side):
            out = out + _unband(bands[:, :, :, dy]) @ value[:, dy : dy + y]
        merged = out.reshape(b, self.heads, y * x, d).transpose(1, 2).flatten(2)
        projected: Tensor = self.projection(merged)
        return projected


def _band(rows: Tensor, side: int) -> Tensor:
    """[..., x, x+side-1] to [..., x, side]: place dx of row i is column i+dx.

    Laid out with one more column a row, every row's band starts at column 0.
    """
    x, w = rows.shape[-2:]
    return F.pad(rows.flatten(-2), (0, x)).unflatten(-1, (x, w + 1))[..., :side]


def _unband(band: Tensor) -> Tensor:
    """[..., x, side] to [..., x, x+side-1] with zeros beside the band: `_band` the other way round."""
    x, side = band.shape[-2:]
    return F.pad(band, (0, x)).flatten(-2)[..., :-x].unflatten(-1, (x, x + side - 1))


def _outside(y: int, x: int, reach: int, device: torch.device) -> Tensor:
    """[y, x, places] bool: window places that lie outside of the map."""
    offset = torch.arange(-reach, reach + 1, device=device)

    def beyond(n: int) -> Tensor:
        at = torch.arange(n, device=device)[:, None] + offset
        return (at < 0) | (at >= n)

    return (beyond(y)[:, None, :, None] | beyond(x)[None, :, None, :]).flatten(2)


class SpatialGELU(nn.Module):
    """Group norm, GELU, depthwise 5x5: the middle of the feed-forward network sees its neighbours."""

    def __init__(self, width: int, groups: int = 32) -> None:
        super().__init__()
        self.gn = nn.GroupNorm(groups, width)
        self.conv = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False)

    def forward(self, tokens: Tensor, y: int, x: int) -> Tensor:
        return as_tokens(self.conv(F.gelu(self.gn(as_map(tokens, y, x)))))


class MemoryLookup(Protocol):
    """What a layer's memories say to a frame that would itself leave `own` there (without identity)."""

    def __call__(self, layer: int, own: Tokens) -> tuple[Tensor, Tokens]:
        """What its key reads from long-term memory [B, N, C], before the projection; the previous frame's tokens."""
        ...


class LSTTBlock(nn.Module):
    """Self-attention, long- and short-term attention, feed-forward; each on layer-normed input, added to it.

    `gated` False is the block of AOT: one projection makes query and key, the identity enters the value before its
    projection, V' = linear_V(V + id). True is the block of AOST and AOTv2, where the identity also turns each
    head's key up or down: [g, i] = linear_ID_KV(id), K' = K * (1 + tanh(g)), V' = V + i.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.gated = gated
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        if gated:
            self.linear_QV = nn.Linear(width, 2 * width)
            self.linear_ID_KV = nn.Linear(width, heads + width)
        else:
            self.linear_Q = nn.Linear(width, width)
            self.linear_V = nn.Linear(width, width)
        self.long_term_attn = LongTermAttention(width)
        self.short_term_attn = ShortTermAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.activation = SpatialGELU(hidden)
        self.linear2 = nn.Linear(hidden, width)

    def remember(self, own: Tokens, identity: Tensor) -> Tokens:
        """What a frame leaves in memory: its own key and value, told who is where by identity [B, N, C].

        own   [B, N, C], or [1, N, C] where it is the same for all passes
        """
        if not self.gated:
            value = self.linear_V(own.value + identity)
            return Tokens(own.key.expand_as(value), value)
        gate, shift = self.linear_ID_KV(identity).split([self.heads, identity.shape[2]], 2)
        key = own.key.unflatten(2, (self.heads, -1)) * (1 + torch.tanh(gate))[..., None]
        return Tokens(key.flatten(2), own.value + shift)

    def forward(
        self, x: Tensor, positions: Tensor, lookup: Callable[[Tokens], tuple[Tensor, Tokens]], height: int, width: int
    ) -> tuple[Tensor, Tokens]:
        """The block's output, and its own key and value, without identity.

        x        [B, N, C], or [1, N, C] where it is yet the same for all of a memory's passes
        lookup   see MemoryLookup; what it returns says how many passes there are
        """
        x = x + self.self_attn(self.norm1(x), positions)
        y = self.norm2(x)
        query, value = self.linear_QV(y).chunk(2, 2) if self.gated else (self.linear_Q(y), y)
        own = Tokens(query, value)
        read, short = lookup(own)
        x = x + self.long_term_attn(read) + self.short_term_attn(query, short, height, width)
        x = x + self.linear2(self.activation(self.linear1(self.norm3(x)), height, width))
        return x, own
