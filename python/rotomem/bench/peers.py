"""What the kernels are held against: published formulas in plain torch, FAISS, torch's fused attention.

The dense formulas come twice: as the papers' authors run them, and in their fastest honest form, in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.bench.cases import Inputs


def similarity(inputs: Inputs) -> Tensor:
    """Anisotropic L2 [1, N, P] by products of matrices (XMem, eq. 2, multiplied out as its authors run it)."""
    rows, query, selection = inputs.key.transpose(1, 2), inputs.query_key, inputs.selection
    squares = rows.square() @ selection
    cross = 2 * (rows @ (query * selection))
    constant = (selection * query.square()).sum(1, keepdim=True)
    return (-squares + cross - constant) * inputs.shrinkage.unsqueeze(2) / math.sqrt(rows.shape[2])


def lean_similarity(inputs: Inputs) -> Tensor:
    """The same numbers, of which one matrix is ever held."""
    rows, query, selection = inputs.key.transpose(1, 2), inputs.query_key, inputs.selection
    weighted = query * selection
    scores = torch.bmm(rows, 2 * weighted)
    scores.baddbmm_(rows.square(), selection, alpha=-1)
    scores -= (weighted * query).sum(1, keepdim=True)
    scores *= inputs.shrinkage.unsqueeze(2) / math.sqrt(rows.shape[2])
    return scores


def affinity(scores: Tensor, top_k: int) -> Tensor:
    """[1, N, P]: a softmax over the top-k of every column among zeros; it takes the place of the scores."""
    top, index = scores.topk(top_k, dim=1)
    weights = (top - top[:, :1]).exp_()
    weights /= weights.sum(1, keepdim=True)
    return scores.zero_().scatter_(1, index, weights)


def weigh(value: Tensor, weights: Tensor) -> Tensor:
    """Values [1, O, CV, N] summed by weights [1, N, P]: [1, O, CV, P]."""
    return torch.matmul(value, weights.unsqueeze(1))


def read(inputs: Inputs, top_k: int, *, lean: bool = False) -> tuple[Tensor, Tensor]:
    """Readout [1, O, CV, P] and usage [1, N] by a dense affinity."""
    weights = affinity((lean_similarity if lean else similarity)(inputs), top_k)
    return weigh(inputs.value, weights), weights.sum(2)


def similarity_bytes(elements: int, positions: int, *, lean: bool = False) -> int:
    """What a dense similarity holds at least: its products and their sum, or one matrix."""
    return (1 if lean else 3) * 4 * elements * positions


def potentiate(inputs: Inputs, *, lean: bool = False) -> tuple[Tensor, Tensor]:
    """Values [1, O, CV, P] and shrinkage [1, P] of prototypes: a full softmax over candidates (XMem, eq. 6 and 7).

    lean   also makes weights 0 that are too small for normal float32 numbers: with them a CPU's products take many
           times as long
    """
    if lean:
        weights = lean_similarity(inputs).softmax(1)
        F.threshold(weights, torch.finfo(torch.float32).tiny, 0.0, inplace=True)
    else:
        weights = similarity(inputs).softmax(1)
    return weigh(inputs.value, weights), torch.bmm(inputs.shrinkage.unsqueeze(1), weights).squeeze(1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k' / sqrt(C)) v with all of the matrix: query [B, H, P, C], key [B, H, N, C], value [B, H, N, CV]."""
    return (query / math.sqrt(query.shape[3]) @ key.transpose(2, 3)).softmax(3) @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by torch's fused kernel."""
    return F.scaled_dot_product_attention(query, key, value)


def unfolded_attention(
    query: Tensor, key: Tensor, value: Tensor, relative_key: Tensor, relative_bias: Tensor, relative_value: Tensor
) -> Tensor:
    """Attention to a window, [B, C, Y, X], every position's window laid out (arguments: `ops.local_attention`)."""
    heads, places, depth = relative_key.shape
    batch, _, y, x = query.shape
    side = math.isqrt(places)

    def windows(of: Tensor) -> Tensor:  # [B, heads, D, places, Y*X]
        return F.unfold(of, side, padding=side // 2).view(batch, heads, depth, places, y * x)

    asked = query.reshape(batch, heads, depth, 1, y * x)
    scores = (asked / math.sqrt(depth) * windows(key)).sum(2)
    scores += torch.einsum("hpd,bhdn->bhpn", relative_key, asked[:, :, :, 0]) + relative_bias[:, :, None]
    there = F.unfold(torch.ones(1, 1, y, x, device=query.device), side, padding=side // 2) > 0
    weights = scores.masked_fill_(~there, -math.inf).softmax(2)
    read = (weights.unsqueeze(2) * windows(value)).sum(3)
    read += torch.einsum("hdp,bhpn->bhdn", relative_value, weights)
    return read.reshape(query.shape)


def faiss_absent() -> str:
    """Why FAISS cannot be asked, or nothing."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return "faiss is not installed: pip install 'rotomem[bench]'"
    return ""


def faiss_search(inputs: Inputs, top_k: int = 30) -> Callable[[], object]:
    """FAISS' exact search for the top-k alone: no softmax, no values.

    The anisotropic similarity is an inner product of vectors of 2 CK + 1 numbers, which are made beforehand:
    shrinkage * [k | k^2 | 1] with [2 e q | -e | -sum e q^2].
    """
    import faiss

    key, query, selection = inputs.key[0].T, inputs.query_key[0].T, inputs.selection[0].T
    one = torch.ones(key.shape[0], 1)
    stored = torch.cat([key, key.square(), one], 1) * inputs.shrinkage[0, :, None]
    constant = (selection * query.square()).sum(1, keepdim=True)
    asked = torch.cat([2 * selection * query, -selection, -constant], 1).contiguous().numpy()
    index = faiss.IndexFlatIP(stored.shape[1])
    index.add(stored.contiguous().numpy())
    faiss.omp_set_num_threads(torch.get_num_threads())
    return lambda: index.search(asked, top_k)
