"""Reading the memory: the one operation that grows with the shot, and the reason for native kernels.

Layouts that cost nothing: store `key` as [N, CK] and `value` as [O, N, CV], both contiguous along the last axis,
and pass transposed views (`key.T`, `value.transpose(-1, -2)`). New elements are then appended, and old ones
dropped, as whole rows. Any other strides give the same result; a value whose channels are not contiguous is
copied first (O*N*CV numbers on every read), a key never is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rotomem.errors import ShapeError
from rotomem.ops import _autograd, _check, _cuda, _native, _torch, backend
from rotomem.ops.packed import PackedKeys

# The kernel keeps a bit for every group.
_MOST_GROUPS = 64


class Readout(NamedTuple):
    """What the memory holds at every query position.

    readout   [B, O, CV, P] in the query's dtype
    usage     [B, N] float32: affinity every element received, summing to P per batch; None unless asked for
    """

    readout: Tensor
    usage: Tensor | None


def read_memory(
    key: Tensor,
    query_key: Tensor,
    value: Tensor,
    *,
    shrinkage: Tensor | None = None,
    selection: Tensor | None = None,
    top_k: int | None = 30,
    similarity: str = "anisotropic_l2",
    valid: Tensor | None = None,
    need_usage: bool = False,
    packed: PackedKeys | None = None,
) -> Readout:
    """Tell every query position what the memory holds there.

    Each position attends to its `top_k` most similar elements by a softmax over their similarities (the forms are
    in `rotomem.ops.similarity`). Equal scores go to the lower n, so a render repeats bit for bit on one machine (with
    the native kernels whatever the number of threads). A score that is not a finite number counts as no match at all;
    a position without any match reads zeros and uses nothing.

    key          [B, CK, N]      N elements, N >= 1
    query_key    [B, CK, P]      float32, float16, bfloat16 or float64 (halves are computed in float32)
    value        [B, O, CV, N]   one row per object, finite
    shrinkage    [B, N]          anisotropic_l2 only, None means all ones
    selection    [B, CK, P]      0..1, anisotropic_l2 only; None means all ones
    top_k        None: a full softmax; more than N means N
    valid        [B, N] bool     elements that may be read (objects that came late see a part of the memory)
    need_usage   also sum up the affinity every element received
    packed       what is kept of this memory's keys between reads, for the CPU without gradients; batch 1
    returns      Readout(readout [B, O, CV, P], usage [B, N] or None)

    Raises EmptyMemoryError where N is 0 or `valid`, on the CPU, leaves nothing (on a device, which nothing here waits
    for, zeros are read then); ShapeError naming the argument and the sizes; UsageError for an unknown similarity;
    BackendError where a forced backend is absent.
    Cost: B*CK*N*P multiply-adds, twice that with a selection; scratch is a tile of S and top_k indices a position,
    never all of S, with gradients too. Those of a full softmax flow in plain torch.
    Defined by kernels/topk_readout/reference.py.
    """
    _check_read(key, query_key, [value], shrinkage, selection, top_k, similarity, [valid], packed)
    inputs = (key, query_key, value, shrinkage, selection)
    isa = backend.choose(*inputs, valid, cuda=True, differentiable=top_k is not None)
    if isa == "cuda":
        trouble = _cuda.read_trouble(key, top_k)
        if not trouble:
            assert top_k is not None
            read = _cuda.read_memory(*inputs, top_k, similarity, valid, need_usage)
            return Readout(read.readout, read.usage)
        backend.give_way(trouble)
        isa = None
    if backend.gradient_needed(*inputs):
        return Readout(*_autograd.Read.apply(*inputs, valid, top_k, similarity, need_usage, isa))
    if isa is None:
        read = _torch.read_memory(*inputs, top_k, similarity, valid, need_usage)
    else:
        read = _native.read_memory(*inputs, top_k, similarity, valid, need_usage, isa, packed=packed)
    return Readout(read.readout, read.usage)


def read_groups(
    key: Tensor,
    query_key: Tensor,
    values: Sequence[Tensor],
    valids: Sequence[Tensor | None],
    *,
    shrinkage: Tensor | None = None,
    selection: Tensor | None = None,
    top_k: int | None = 30,
    similarity: str = "anisotropic_l2",
    need_usage: bool = False,
    packed: PackedKeys | None = None,
) -> list[Readout]:
    """Read groups of objects that have seen different parts of one memory, comparing keys once for all of them.

    Arguments as for `read_memory`, batch 1; of each group

    values       [1, O, CV, N]   O may differ
    valids       [1, N] bool     elements that the group has seen; None means all
    returns      a Readout for each, with usage for the first group alone

    Raises as `read_memory` does. Cost: the similarities of one read, a top-k and a sum of values for each group.
    Plain torch, NVIDIA devices, and a full softmax, read group by group.
    """
    _check_read(key, query_key, values, shrinkage, selection, top_k, similarity, valids, packed)
    if key.shape[0] != 1:
        raise ShapeError(f"key has batch {key.shape[0]}", remedy="read groups of one memory at a time")
    isa = backend.choose(key, query_key, *values, shrinkage, selection, *valids, cuda=True)
    if isa in (None, "cuda"):
        return [
            read_memory(
                key,
                query_key,
                value,
                shrinkage=shrinkage,
                selection=selection,
                top_k=top_k,
                similarity=similarity,
                valid=valid,
                need_usage=need_usage and i == 0,
            )
            for i, (value, valid) in enumerate(zip(values, valids, strict=True))
        ]
    results: list[Readout] = []
    for first in range(0, len(values), _MOST_GROUPS):
        some = slice(first, first + _MOST_GROUPS)
        readouts, usage = _native.read_groups(
            key,
            query_key,
            values[some],
            shrinkage,
            selection,
            top_k,
            similarity,
            valids[some],
            need_usage and first == 0,
            isa,
            packed,
        )
        results += [Readout(readout, usage if i == 0 else None) for i, readout in enumerate(readouts)]
    return results


def _check_read(
    key: Tensor,
    query_key: Tensor,
    values: Sequence[Tensor],
    shrinkage: Tensor | None,
    selection: Tensor | None,
    top_k: int | None,
    similarity: str,
    valids: Sequence[Tensor | None],
    packed: PackedKeys | None,
) -> None:
    _check.keys(key, query_key, shrinkage, selection, similarity)
    batch, elements = key.shape[0], key.shape[2]
    if len(values) != len(valids):
        raise ShapeError(f"{len(values)} values, {len(valids)} valids", remedy="pass one of each for every group")
    for value, valid in zip(values, valids, strict=True):
        _check.shape("value", value, (batch, None, None, elements), "[B, O, CV, N]")
        _check.floating("value", value)
        _check.mask(valid, batch, elements)
    if top_k is not None and top_k < 1:
        raise ShapeError(f"top_k is {top_k}", remedy="use at least 1, or None for a full softmax")
    if packed is not None and batch != 1:
        raise ShapeError(f"packed keys are of one memory, key has batch {batch}", remedy="read without `packed`")
