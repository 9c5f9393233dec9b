"""What is kept when working memory is full: prototypes of the old frames, and the most used of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotomem.errors import ShapeError
from rotomem.ops import _check, _cuda, _torch, backend
from rotomem.ops._native import array, rows


@dataclass(frozen=True)
class Prototypes:
    """Elements that stand for many.

    index       [B, P] int64: which candidates they were, most used first
    key         [B, CK, P]
    shrinkage   [B, P]
    value       [B, O, CV, P]
    """

    index: Tensor
    key: Tensor
    shrinkage: Tensor
    value: Tensor


def consolidate(
    candidate_key: Tensor,
    candidate_shrinkage: Tensor,
    candidate_value: Tensor,
    candidate_selection: Tensor,
    usage: Tensor,
    count: int,
    *,
    valid: Tensor | None = None,
    index: Tensor | None = None,
) -> Prototypes:
    """Make prototypes of candidates: pick the most used, fill them with what their neighbours hold (potentiation).

    The `count` candidates of highest usage become prototypes, most used first, equal usage to the lower index, NaN
    last. A prototype keeps its candidate's key; its value and shrinkage are means of all valid candidates, weighted
    by a full softmax of the anisotropic similarity, in which the prototype asks with its own key and selection
    (XMem, eq. 6 and 7).

    candidate_key         [B, CK, N]
    candidate_shrinkage   [B, N]
    candidate_value       [B, O, CV, N]
    candidate_selection   [B, CK, N]
    usage                 [B, N]   only its order matters
    count                 prototypes to make; more than there are valid candidates means all of these
    valid                 [B, N] bool: candidates that may be picked and mixed; None means all
    index                 [B, P] int64: prototypes already picked, for objects that see only a part of the candidates:
                          `valid` then masks the mixing alone, `usage` and `count` are not looked at
    returns               Prototypes(index, key, shrinkage, value), P = min(count, valid candidates)

    Raises EmptyMemoryError without valid candidates; ShapeError naming the argument.
    Cost: 2*B*CK*N*P multiply-adds for the weights, B*O*CV*N*P for the values.
    Defined by kernels/consolidate/reference.py.
    """
    _check.keys(candidate_key, candidate_key, candidate_shrinkage, candidate_selection, "anisotropic_l2")
    batch, _, elements = candidate_key.shape
    _check.shape("candidate_value", candidate_value, (batch, None, None, elements), "[B, O, CV, N]")
    _check.floating("candidate_value", candidate_value)
    _check.shape("usage", usage, (batch, elements), "[B, N]")
    _check.floating("usage", usage)
    _check.mask(valid, batch, elements)
    if index is None:
        if count < 1:
            raise ShapeError(f"count is {count}", remedy="ask for at least 1 prototype")
        if valid is not None and batch:
            count = min(count, int((valid != 0).sum(1).min()))
        index = _most_used(usage, min(count, elements), valid)
    else:
        _check.shape("index", index, (batch, None), "[B, P]")
        if index.is_floating_point() or index.dtype == torch.bool:
            raise ShapeError(f"index is {index.dtype}", remedy="pass whole numbers, int64")
        index = index.long()
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < elements:
            raise ShapeError(
                f"index goes from {int(index.min())} to {int(index.max())}, there are {elements} candidates",
                remedy="pass the index of Prototypes made from the same candidates",
            )

    tensors = (candidate_key, candidate_shrinkage, candidate_value, candidate_selection)
    isa = backend.choose(*tensors, index, valid, cuda=True)
    if isa in (None, "cuda"):
        make = _torch.consolidate if isa is None else _cuda.consolidate
        return Prototypes(index, *make(*tensors, index, valid))
    channels, (objects, depth), made = candidate_key.shape[1], candidate_value.shape[1:3], index.shape[1]
    key = torch.empty(batch, channels, made)
    shrinkage = torch.empty(batch, made)
    value = torch.empty(batch, objects, depth, made)
    for b in range(batch):
        backend.kernels.consolidate(
            key=array(candidate_key[b]),
            shrinkage=array(candidate_shrinkage[b]),
            value=array(rows(candidate_value[b])),
            selection=array(candidate_selection[b]),
            index=array(index[b].contiguous()),
            valid=None if valid is None else array(valid[b].to(torch.uint8)),
            prototype_key=key[b].numpy(),
            prototype_shrinkage=shrinkage[b].numpy(),
            prototype_value=value[b].numpy(),
            instructions=isa,
            threads=torch.get_num_threads(),
        )
    return Prototypes(
        index,
        key.to(candidate_key.dtype),
        shrinkage.to(candidate_shrinkage.dtype),
        value.to(candidate_value.dtype),
    )


def _most_used(usage: Tensor, count: int, valid: Tensor | None) -> Tensor:
    if backend.choose(usage.detach(), cuda=True) in (None, "cuda"):
        return _torch.most_used(usage, count, valid)
    picked = [
        torch.from_numpy(
            backend.kernels.most_used(
                usage=array(usage[b]), count=count, valid=None if valid is None else array(valid[b].to(torch.uint8))
            )
        )
        for b in range(usage.shape[0])
    ]
    return torch.stack(picked) if picked else torch.empty(0, count, dtype=torch.int64)


def keep_most_used(usage: Tensor, keep: int) -> Tensor:
    """Choose the elements that survive when memory must shrink to about `keep` of them (least frequently used go).

    Survivors are the elements used strictly more than the (N - keep)-th least used one, so elements tied at that
    threshold go together and fewer than `keep` may stay (XMem's rule). Where that would leave nothing, the `keep`
    most used stay, equal usage to the lower index. NaN counts as never used.

    usage     [N]   affinity received per frame of life
    keep      0 or more; N or more keeps everything
    returns   [M] int64, ascending

    Raises ShapeError. Defined by kernels/forget/reference.py.
    """
    _check.shape("usage", usage, (None,), "[N]")
    _check.floating("usage", usage)
    if keep < 0:
        raise ShapeError(f"keep is {keep}", remedy="pass 0 or more")
    if backend.choose(usage.detach(), cuda=True) in (None, "cuda"):
        return _torch.keep_most_used(usage, keep)
    return torch.from_numpy(backend.kernels.keep_most_used(usage=array(usage), keep=keep))
