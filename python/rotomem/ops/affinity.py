"""Dense similarity and affinity: every pair at once, for training and for looking at. Reading never makes them."""

from __future__ import annotations

from torch import Tensor

from rotomem.errors import ShapeError
from rotomem.ops import _check, _torch


def similarity(
    key: Tensor,
    query_key: Tensor,
    *,
    shrinkage: Tensor | None = None,
    selection: Tensor | None = None,
    similarity: str = "anisotropic_l2",
) -> Tensor:
    """Score every memory element against every query position.

        dot              S[n, p] = key[:, n] . query_key[:, p] / sqrt(CK)                               (STM)
        l2               S[n, p] = (2 key[:, n] . query_key[:, p] - |key[:, n]|**2) / sqrt(CK)          (STCN)
        anisotropic_l2   S[n, p] = -shrinkage[n] / sqrt(CK)
                                   * sum_c selection[c, p] * (key[c, n] - query_key[c, p])**2      (XMem, eq. 2)

    key          [B, CK, N]  any float type; half types are computed in float32
    query_key    [B, CK, P]
    shrinkage    [B, N]      anisotropic_l2 only; None means all ones
    selection    [B, CK, P]  0..1, anisotropic_l2 only; None means all ones
    returns      [B, N, P]   float32 (float64 where key is); differentiable

    Raises ShapeError naming the argument; EmptyMemoryError where N is 0; UsageError for an unknown similarity.
    Cost: B*CK*N*P multiply-adds, twice that with a selection; B*N*P numbers of memory.
    """
    _check.keys(key, query_key, shrinkage, selection, similarity)
    return _torch.similarity(key, query_key, shrinkage, selection, similarity)


def affinity(
    key: Tensor,
    query_key: Tensor,
    *,
    shrinkage: Tensor | None = None,
    selection: Tensor | None = None,
    top_k: int | None = None,
    similarity: str = "anisotropic_l2",
    valid: Tensor | None = None,
) -> Tensor:
    """Weights [B, N, P] with which every query position would read every element; each column sums to 1.

    Arguments as for `similarity` and, for top_k and valid, as for `read_memory`. A column whose every score is
    not a finite number is zero. Differentiable.

    Raises as `similarity`; EmptyMemoryError where `valid` leaves nothing.
    """
    _check.keys(key, query_key, shrinkage, selection, similarity)
    _check.mask(valid, key.shape[0], key.shape[2])
    if top_k is not None and top_k < 1:
        raise ShapeError(f"top_k is {top_k}", remedy="use at least 1, or None for a full softmax")
    return _torch.affinity(key, query_key, shrinkage, selection, similarity, top_k, valid)
