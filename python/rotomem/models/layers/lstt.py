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

from rotomem import ops
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
    read = ops.attend(_split(query, heads), _split(key, heads), _split(value, heads))
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
        bias = self.relative_emb_k.bias
        assert bias is not None
        read = ops.local_attention(
            as_map(query.expand_as(memory.key), y, x),
            as_map(memory.key, y, x),
            as_map(memory.value, y, x),
            relative_key=self.relative_emb_k.weight.view(self.heads, self.side**2, -1),
            relative_bias=bias.view(self.heads, self.side**2),
            relative_value=self.relative_emb_v,
        )
        projected: Tensor = self.projection(as_tokens(read))
        return projected


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
