"""Softmax attention, to everything or to the places around one's own, without a matrix of all pairs."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from rotomem.errors import EmptyMemoryError, ShapeError
from rotomem.ops import _check, _cuda, _torch, backend


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Tell every query what the values hold, weighed by a softmax over all keys (STM, eq. 1; AOT, section 4).

        readout[p] = sum_n softmax_n(query[p] . key[n] / sqrt(CK)) * value[n]

    query      [B, heads, P, CK]  rows with contiguous channels cost nothing, others are copied first
    key        [B, heads, N, CK]  N >= 1
    value      [B, heads, N, CV]
    returns    [B, heads, P, CV] in the query's dtype; from the native kernels the heads of a query lie side by side

    Raises EmptyMemoryError where N is 0; ShapeError naming the argument and the sizes; BackendError where a forced
    backend is absent.
    Cost: B*heads*P*N*(CK + CV) multiply-adds; scratch a thread a block of 144 queries. Half types, gradients and
    devices go to torch's fused attention, which streams too (with gradients on the CPU only where CK is CV); on
    NVIDIA devices nothing of ours would do better.
    Defined by kernels/attention/reference.py.
    """
    _check.shape("query", query, (None, None, None, None), "[B, heads, P, CK]")
    batch, heads, positions, channels = query.shape
    _check.shape("key", key, (batch, heads, None, channels), "[B, heads, N, CK]")
    _check.shape("value", value, (batch, heads, key.shape[2], None), "[B, heads, N, CV]")
    given = {"query": query, "key": key, "value": value}
    for name, tensor in given.items():
        _check.floating(name, tensor)
    if channels == 0:
        raise ShapeError("keys have no channels", remedy="CK must be at least 1")
    if key.shape[2] == 0:
        raise EmptyMemoryError("there are no elements to attend to", remedy="give a key mask before reading")
    isa = backend.choose(query, key, value, cuda=True)
    if isa == "portable" and channels == value.shape[3] and not backend.forced():
        isa = (
            None  # torch's fused attention takes a third of the portable kernel's time; AVX-512's, 1.4 times as long
        )
    if isa in (None, "cuda"):
        return _torch.attend(**given)
    readout = torch.empty(batch, positions, heads, value.shape[3]).transpose(1, 2)
    backend.kernels.attention(
        **{name: _rows(tensor).numpy() for name, tensor in given.items()},
        readout=readout.numpy(),
        instructions=isa,
        threads=torch.get_num_threads(),
    )
    return readout.to(query.dtype)


def _rows(tensor: Tensor) -> Tensor:
    """float32 with contiguous channels; a copy only where it is neither."""
    rows = tensor.detach().float()
    return rows if rows.stride(3) == 1 or rows.shape[3] <= 1 else rows.contiguous()


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    relative_key: Tensor,
    relative_bias: Tensor,
    relative_value: Tensor,
) -> Tensor:
    """Tell every position what another map holds within a window around it.

    A query at (y, x) compares with the keys at (y+dy, x+dx), |dy| and |dx| <= reach, which take the window's place
    (dy+reach)*side + dx+reach, side = 2*reach+1. In every head of D = C/heads channels (AOT, section 4):
        score   = query . key / sqrt(D) + query . relative_key[place] + relative_bias[place]
        readout = sum_place softmax(score)[place] * (value + relative_value[:, place])
    Places outside of the map take no part.

    query            [B, C, Y, X]           any strides: tokens seen as a map cost nothing
    key, value       [B, C, Y, X]
    relative_key     [heads, side*side, D]
    relative_bias    [heads, side*side]
    relative_value   [heads, D, side*side]
    returns          [B, C, Y, X] in the query's dtype; from the native kernels channels lie next to each other

    Raises ShapeError naming the argument and the sizes; BackendError where a forced backend is absent.
    Cost: 4*B*C*Y*X*side**2 multiply-adds; scratch a thread some rows of one head. Plain torch, where gradients flow,
    makes up to X/side times as many and holds B*heads*Y*X*(side**2 + X) scores.
    Defined by kernels/local_attention/reference.py.
    """
    _check.shape("query", query, (None, None, None, None), "[B, C, Y, X]")
    _check.shape("key", key, tuple(query.shape), "[B, C, Y, X]")
    _check.shape("value", value, tuple(query.shape), "[B, C, Y, X]")
    _check.shape("relative_key", relative_key, (None, None, None), "[heads, side*side, D]")
    heads, places, depth = relative_key.shape
    _check.shape("relative_bias", relative_bias, (heads, places), "[heads, side*side]")
    _check.shape("relative_value", relative_value, (heads, depth, places), "[heads, D, side*side]")
    if isqrt(places) ** 2 != places or places % 2 == 0:
        raise ShapeError(f"relative_key has {places} places", remedy="a window has an odd number squared, as 15*15")
    if heads * depth != query.shape[1] or depth == 0:
        raise ShapeError(
            f"query has {query.shape[1]} channels, relative_key {heads} heads of {depth}",
            remedy="C is heads times D",
        )
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        _check.floating(name, tensor)
    given = {
        "query": query,
        "key": key,
        "value": value,
        "relative_key": relative_key,
        "relative_bias": relative_bias,
        "relative_value": relative_value,
    }
    isa = backend.choose(*given.values(), cuda=True)
    if isa == "cuda":
        trouble = _cuda.local_attention_trouble(relative_key)
        if not trouble:
            return _cuda.local_attention(**given)
        backend.give_way(trouble)
        isa = None
    if isa is None:
        return _torch.local_attention(**given)
    b, c, y, x = query.shape
    readout = torch.empty(b, y, x, c).permute(0, 3, 1, 2)
    backend.kernels.local_attention(
        **{name: tensor.detach().float().numpy() for name, tensor in given.items()},
        readout=readout.numpy(),
        instructions=isa,
        threads=torch.get_num_threads(),
    )
    return readout.to(query.dtype)
