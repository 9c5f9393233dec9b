"""Shifted windows against a dense formulation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rotomem.models.layers.swin import PatchMerging, SwinBlock, _shift_mask


def by_position(block: SwinBlock, x: Tensor) -> Tensor:
    """One query at a time on the padded map: keys of the same window, and not across the seam of the roll."""
    side, shift = block.side, block.shift
    _, h, w, c = x.shape
    big = (h + -h % side, w + -w % side)
    normed = torch.zeros(*big, c, dtype=x.dtype)
    normed[:h, :w] = block.norm1(x)[0]
    attn = block.attn
    d = c // attn.heads
    qkv = attn.qkv(normed).view(*big, 3, attn.heads, d)
    table = attn.relative_position_bias_table
    # Where a position lies after the roll, and whether it came round the edge.
    where = [[((i - shift) % n, i < shift) for i in range(n)] for n in big]
    out = torch.zeros(h, w, c, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            keys = [
                (r, s)
                for r in range(big[0])
                for s in range(big[1])
                if where[0][r][0] // side == where[0][i][0] // side
                and where[1][s][0] // side == where[1][j][0] // side
                and where[0][r][1] == where[0][i][1]
                and where[1][s][1] == where[1][j][1]
            ]
            for head in range(attn.heads):
                q = qkv[i, j, 0, head]
                scores = torch.stack(
                    [
                        q @ qkv[r, s, 1, head] / math.sqrt(d)
                        + table[(i - r + side - 1) * (2 * side - 1) + j - s + side - 1, head]
                        for r, s in keys
                    ]
                )
                values = torch.stack([qkv[r, s, 2, head] for r, s in keys])
                out[i, j, head * d : (head + 1) * d] = scores.softmax(0) @ values
    y = x + attn.proj(out)[None]
    return y + block.mlp(block.norm2(y))


@pytest.mark.parametrize("shift", (0, 1))
@pytest.mark.parametrize("h, w", ((3, 3), (6, 4), (5, 7)))
def test_swin_block_when_compared_position_by_position_then_they_agree(h: int, w: int, shift: int) -> None:
    torch.manual_seed(2)
    block = SwinBlock(8, 2, 3, shift).double()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(1, h, w, 8, dtype=torch.float64)
    with torch.no_grad():
        got, want = block(x, _shift_mask(h, w, 3, 1, x)), by_position(block, x)
    assert torch.allclose(got, want, atol=1e-10), float((got - want).abs().max())


def test_patch_merging_when_sides_are_odd_then_zeros_are_added_below_and_right() -> None:
    torch.manual_seed(2)
    merge = PatchMerging(2)
    x = torch.randn(1, 3, 5, 2)
    padded = torch.zeros(1, 4, 6, 2)
    padded[:, :3, :5] = x
    with torch.no_grad():
        got = merge(x)
        four = torch.cat([padded[0, 2, 4], padded[0, 3, 4], padded[0, 2, 5], padded[0, 3, 5]])
        assert got.shape == (1, 2, 3, 4)
        assert torch.allclose(got[0, 1, 2], merge.reduction(merge.norm(four)), atol=1e-6)
