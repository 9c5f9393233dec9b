"""The native kernels as torch sees them: tensors to arrays, batch by batch. Arguments are checked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rotomem.ops import backend
from rotomem.ops._torch import Grads, Read
from rotomem.ops.packed import PackedKeys


def read_memory(
    key: Tensor,
    query_key: Tensor,
    value: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    top_k: int | None,
    form: str,
    valid: Tensor | None,
    need_usage: bool,
    isa: str,
    need_chosen: bool = False,
    packed: PackedKeys | None = None,
) -> Read:
    """A read (see ops.readout.read_memory) with the instructions `isa`; what was chosen needs a top_k."""
    batch, elements, positions = key.shape[0], key.shape[2], query_key.shape[2]
    k = min(top_k or 0, elements)  # 0: all, by a full softmax
    readout = torch.empty(batch, *value.shape[1:3], positions)
    usage = torch.empty(batch, elements) if need_usage else None
    index = torch.empty(batch, positions, k, dtype=torch.int32) if need_chosen else None
    weight = torch.empty(batch, positions, k) if need_chosen else None
    for b in range(batch):
        backend.kernels.topk_readout(
            key=array(key[b]),
            query_key=array(query_key[b]),
            value=array(rows(value[b])),
            shrinkage=None if shrinkage is None else array(shrinkage[b]),
            selection=None if selection is None else array(selection[b]),
            valid=None if valid is None else array(valid[b].to(torch.uint8)),
            readout=readout[b].numpy(),
            usage=None if usage is None else usage[b].numpy(),
            index=None if index is None else index[b].numpy(),
            weight=None if weight is None else weight[b].numpy(),
            packed=_packed(packed, key[b], shrinkage, selection, top_k, form, isa),
            top_k=k,
            similarity=form,
            instructions=isa,
            threads=torch.get_num_threads(),
        )
    return Read(readout.to(query_key.dtype), usage, index, weight)


def read_groups(
    key: Tensor,
    query_key: Tensor,
    values: Sequence[Tensor],
    shrinkage: Tensor | None,
    selection: Tensor | None,
    top_k: int | None,
    form: str,
    valids: Sequence[Tensor | None],
    need_usage: bool,
    isa: str,
    packed: PackedKeys | None,
) -> tuple[list[Tensor], Tensor | None]:
    """Readouts [1, O, CV, P] and usage [1, N] of up to 64 groups (see ops.readout.read_groups); batch 1."""
    elements, positions = key.shape[2], query_key.shape[2]
    readouts = [torch.empty(*value.shape[:3], positions) for value in values]
    usage = torch.empty(1, elements) if need_usage else None
    groups = [
        (array(rows(value[0])), None if valid is None else array(valid[0].to(torch.uint8)), readout[0].numpy())
        for value, valid, readout in zip(values, valids, readouts, strict=True)
    ]
    value, valid, readout = groups[0]
    backend.kernels.topk_readout(
        key=array(key[0]),
        query_key=array(query_key[0]),
        value=value,
        shrinkage=None if shrinkage is None else array(shrinkage[0]),
        selection=None if selection is None else array(selection[0]),
        valid=valid,
        readout=readout,
        usage=None if usage is None else usage[0].numpy(),
        others=groups[1:],
        packed=_packed(packed, key[0], shrinkage, selection, top_k, form, isa),
        top_k=0 if top_k is None else min(top_k, elements),
        similarity=form,
        instructions=isa,
        threads=torch.get_num_threads(),
    )
    return [readout.to(query_key.dtype) for readout in readouts], usage


def _packed(
    packed: PackedKeys | None,
    key: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    top_k: int | None,
    form: str,
    isa: str,
) -> object:
    """What a read of key [CK, N] passes on; None where nothing is chosen: a full softmax packs for itself."""
    if packed is None or top_k is None or top_k >= key.shape[1]:
        return None
    row = None if shrinkage is None else shrinkage[0].detach().float()
    return packed.brought_up(key.detach().float(), row, form, selection is not None, isa)


def read_memory_grads(
    isa: str,
    form: str,
    grad: Tensor,
    key: Tensor,
    query_key: Tensor,
    value: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    index: Tensor,
    weight: Tensor,
) -> Grads:
    """Gradients of a read's inputs, from that of its readout and what it chose (see `read_memory`)."""
    batch, channels, elements = key.shape
    positions, (objects, depth) = query_key.shape[2], value.shape[1:3]
    key_grad, query_grad = torch.empty(batch, elements, channels), torch.empty(batch, positions, channels)
    value_grad = torch.empty(batch, objects, elements, depth)
    shrinkage_grad = None if shrinkage is None else torch.empty(batch, elements)
    selection_grad = None if selection is None else torch.empty(batch, positions, channels)
    for b in range(batch):
        backend.kernels.topk_readout_grad(
            key=array(rows(key[b])),
            query_key=array(rows(query_key[b])),
            value=array(rows(value[b])),
            shrinkage=None if shrinkage is None else array(shrinkage[b]),
            selection=None if selection is None else array(rows(selection[b])),
            index=index[b].numpy(),
            weight=weight[b].numpy(),
            grad_readout=array(rows(grad[b])),
            grad_key=key_grad[b].numpy(),
            grad_query_key=query_grad[b].numpy(),
            grad_value=value_grad[b].numpy(),
            grad_shrinkage=None if shrinkage_grad is None else shrinkage_grad[b].numpy(),
            grad_selection=None if selection_grad is None else selection_grad[b].numpy(),
            similarity=form,
            instructions=isa,
            threads=torch.get_num_threads(),
        )
    return (
        key_grad.mT.to(key.dtype),
        query_grad.mT.to(query_key.dtype),
        value_grad.mT.to(value.dtype),
        None if shrinkage_grad is None or shrinkage is None else shrinkage_grad.to(shrinkage.dtype),
        None if selection_grad is None or selection is None else selection_grad.mT.to(selection.dtype),
    )


def array(tensor: Tensor) -> object:
    """The tensor's memory as a NumPy array, float32 where it is a float."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def rows(columns: Tensor) -> Tensor:
    """[..., C, M] as [..., M, C] with contiguous channels, in float32; a copy only where they are not."""
    wide = columns.detach().float().mT
    if wide.stride(-1) == 1 or wide.shape[-1] <= 1:
        return wide
    if wide.ndim == 2:
        return wide.contiguous()
    copy = torch.empty(wide.shape)
    for to, matrix in zip(copy, wide, strict=True):  # torch turns a single matrix 8 times as fast as a batch of one
        to.copy_(matrix)
    return copy
