"""Reading the memory: the one operation that grows with the shot, and the reason for native kernels.

Layouts that cost nothing: store `key` as [N, CK] and `value` as [O, N, CV], both contiguous along the last axis,
and pass transposed views (`key.T`, `value.transpose(-1, -2)`). New elements are then appended, and old ones
dropped, as whole rows. Any other strides give the same result; a value whose channels are not contiguous is
copied first (O*N*CV numbers on every read), a key never is.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rotomem.errors import ShapeError
from rotomem.ops import _autograd, _check, _native, _torch, backend


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
    returns      Readout(readout [B, O, CV, P], usage [B, N] or None)

    Raises EmptyMemoryError where N is 0 or `valid` leaves nothing; ShapeError naming the argument and the sizes;
    UsageError for an unknown similarity; BackendError where a forced backend is absent.
    Cost: B*CK*N*P multiply-adds, twice that with a selection; scratch is a tile of S and top_k indices a position,
    never all of S, with gradients too: these flow in plain torch.
    Defined by kernels/topk_readout/reference.py.
    """
    _check.keys(key, query_key, shrinkage, selection, similarity)
    batch, elements = key.shape[0], key.shape[2]
    _check.shape("value", value, (batch, None, None, elements), "[B, O, CV, N]")
    _check.floating("value", value)
    _check.mask(valid, batch, elements)
    if top_k is not None and top_k < 1:
        raise ShapeError(f"top_k is {top_k}", remedy="use at least 1, or None for a full softmax")

    inputs = (key, query_key, value, shrinkage, selection)
    isa = backend.choose(*inputs)
    if isa is None and backend.gradient_needed(*inputs):
        return Readout(*_autograd.Read.apply(*inputs, valid, top_k, similarity, need_usage))
    if isa is None:
        read = _torch.read_memory(*inputs, top_k, similarity, valid, need_usage)
    else:
        read = _native.read_memory(*inputs, top_k, similarity, valid, need_usage, isa)
    return Readout(read.readout, read.usage)
