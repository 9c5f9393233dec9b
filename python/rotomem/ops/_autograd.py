"""Gradients of reading a memory. What a read keeps for them is its inputs and what every position chose.

The chain, for similarities S, weights w = softmax(S), readout r = sum_n w[n] value[n], and g the gradient of r:

    d value[n]  = sum_p w[n, p] g[p]
    d w[n, p]   = <g[p], value[n]>, over the channels of all objects
    d S[n, p]   = w[n, p] (d w[n, p] - sum_m w[m, p] d w[m, p])

and from S to keys, query keys, shrinkage and selection by the form of the similarity. Which elements are among the
top_k is a choice, and carries no gradient.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rotomem.ops import _native, _torch


class Read(torch.autograd.Function):
    """`ops.read_memory` with gradients: of key, query_key, value, shrinkage and selection, once.

    isa   the native kernels' instructions, where there is a top_k; None: plain torch, on any device

    The graph holds the inputs and, with a top_k, k indices and weights a position; never [N, P].
    """

    @staticmethod
    def forward(
        ctx: Any,
        key: Tensor,
        query_key: Tensor,
        value: Tensor,
        shrinkage: Tensor | None,
        selection: Tensor | None,
        valid: Tensor | None,
        top_k: int | None,
        form: str,
        need_usage: bool,
        isa: str | None,
    ) -> tuple[Tensor, Tensor | None]:
        inputs = (key, query_key, value, shrinkage, selection)
        if isa is None:
            read = _torch.read_memory(*inputs, top_k, form, valid, need_usage, need_chosen=True)
        else:
            read = _native.read_memory(*inputs, top_k, form, valid, need_usage, isa, need_chosen=True)
        ctx.save_for_backward(*inputs, read.index, read.weight, valid)
        ctx.form, ctx.isa = form, isa
        if read.usage is not None:
            ctx.mark_non_differentiable(read.usage)
        return read.readout, read.usage

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            if ctx.isa is None:
                grads = tiled(ctx.form, grad, *ctx.saved_tensors)
            else:
                grads = _native.read_memory_grads(ctx.isa, ctx.form, grad, *ctx.saved_tensors[:7])
        return (*grads, None, None, None, None, None)


def tiled(
    form: str,
    grad: Tensor,
    key: Tensor,
    query_key: Tensor,
    value: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    index: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
) -> _torch.Grads:
    """Gradients of all inputs by matrix products, a block of queries at a time; any device and float type.

    index, weight [B, P, k] as `_torch.read_memory` gives them; None: a full softmax, which is computed again.
    """
    inputs = (key, query_key, value, shrinkage, selection)
    dtype = reduce(torch.promote_types, (t.dtype for t in inputs if t is not None), torch.float32)
    keys, query, values, sharp, select = (None if t is None else t.to(dtype) for t in inputs)
    assert keys is not None and query is not None and values is not None
    grads = grad.to(dtype)
    batch, elements, positions = keys.shape[0], keys.shape[2], query.shape[2]
    rows = values.flatten(1, 2)  # [B, O*CV, N]
    scale = 1.0 / math.sqrt(keys.shape[1])
    key_grad, query_grad, value_grad = torch.zeros_like(keys), torch.zeros_like(query), torch.zeros_like(rows)
    sharp_grad, select_grad = (None if t is None else torch.zeros_like(t) for t in (sharp, select))
    for part in _torch.blocks_of(positions, batch * elements):
        q, g = query[:, :, part], grads[..., part].flatten(1, 2)
        e = None if select is None else select[:, :, part]
        if index is None or weight is None:
            w = _torch.weigh(keys, q, sharp, e, form, valid)  # [B, p, N]
        else:
            w = keys.new_zeros(batch, q.shape[2], elements)
            w.scatter_(2, index[:, part].long(), weight[:, part].to(dtype))
        value_grad.baddbmm_(g, w)
        slope = g.mT @ rows
        slope = w * slope.sub_((w * slope).sum(2, keepdim=True))
        # What nobody matches, or matches nothing, has no part in any product; it may be infinite.
        idle, lost = (w.amax(1) == 0).unsqueeze(1), (w.amax(2) == 0).unsqueeze(1)
        k, q = keys.masked_fill(idle, 0.0), q.masked_fill(lost, 0.0)
        if form == "dot":
            key_grad.baddbmm_(q, slope, alpha=scale)
            query_grad[:, :, part] = scale * (k @ slope.mT)
            continue
        trust = torch.ones_like(q) if e is None else e.masked_fill(lost, 0.0)
        near, cross = (torch.cat((trust, trust * q), 1) @ slope).chunk(2, 1)  # [B, CK, N] each
        away = k * near - cross
        if sharp is not None and sharp_grad is not None:
            constant = (trust * q * q).sum(1, keepdim=True) @ slope
            sharp_grad -= scale * ((k * (away - cross)).sum(1) + constant.squeeze(1))
            factor = sharp.unsqueeze(1).masked_fill(idle, 0.0)
            away, slope = away * factor, slope * factor
        key_grad.sub_(away, alpha=2 * scale)
        first, second = (torch.cat((k, k * k), 1) @ slope.mT).chunk(2, 1)  # [B, CK, p] each
        total = slope.sum(2).unsqueeze(1) if form == "anisotropic_l2" else 0.0  # l2: 0
        query_grad[:, :, part] = 2 * scale * trust * (first - q * total)
        if select_grad is not None:
            select_grad[:, :, part] = -scale * (second - q * (2 * first - q * total))
    return (
        key_grad.to(key.dtype),
        query_grad.to(query_key.dtype),
        value_grad.view_as(values).to(value.dtype),
        None if sharp_grad is None or shrinkage is None else sharp_grad.to(shrinkage.dtype),
        None if select_grad is None or selection is None else select_grad.to(selection.dtype),
    )
