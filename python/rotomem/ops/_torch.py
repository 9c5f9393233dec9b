"""The ops in plain torch: any device and float type; for training and machines without a build.

Same definitions as the kernels (kernels/*/reference.py), ties and empty cases included. Arguments have been
checked by the public functions. Half types are computed in float32. Similarities exist for one block of queries at a
time, so that memory stays bounded; gradients of a read are in `_autograd.py`, those of the rest are torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.ops import backend

# Similarities held at once while reading: 2**21 float32 are 8 MiB, which caches hold; 2**23 took 1.1 times as long.
_BLOCK = 2**21

# Usage is summed in integers, a weight of 1 being 2**40: sums of integers do not depend on their order, so
# usage is the same for any number of threads and on any device.
_USAGE_ONE = 2.0**40

_INF = float("inf")


def _wide(tensor: Tensor) -> Tensor:
    """Halves as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def similarity(
    key: Tensor, query_key: Tensor, shrinkage: Tensor | None, selection: Tensor | None, form: str
) -> Tensor:
    """Dense similarity [B, N, P] (see ops.affinity.similarity)."""
    return _scores(key, query_key, shrinkage, selection, form).mT


def _scores(key: Tensor, query_key: Tensor, shrinkage: Tensor | None, selection: Tensor | None, form: str) -> Tensor:
    """Similarities as [B, P, N], since softmax and top-k run along rows."""
    with torch.autocast(key.device.type, enabled=False):
        keys, query = _wide(key), _wide(query_key).mT  # [B, CK, N], [B, P, CK]
        scale = 1.0 / math.sqrt(key.shape[1])
        if form == "dot":
            return (query * scale) @ keys
        squares = keys * keys
        if selection is None:
            cross = (2.0 * query) @ keys
            square = squares.sum(1, keepdim=True)
            constant = (query * query).sum(2, keepdim=True)
        else:
            select = _wide(selection).mT
            weighted = query * select
            cross = (2.0 * weighted) @ keys
            square = select @ squares
            constant = (query * weighted).sum(2, keepdim=True)
        difference = cross.sub_(square)
        if form == "anisotropic_l2":
            difference = difference.sub_(constant)
        if shrinkage is None:
            return difference * scale
        return difference * (scale * _wide(shrinkage)).unsqueeze(1)


def _masked(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Scores [B, P, N] with everything that is not a finite number of a valid element set to -inf."""
    usable = torch.isfinite(rows)
    if valid is not None:
        usable &= (valid != 0).unsqueeze(1)
    return rows.masked_fill(~usable, -_INF)


def _softmax(rows: Tensor) -> Tensor:
    """Softmax over the last dimension; a row without any finite score gets weights of zero instead of NaN."""
    alive = rows.amax(-1, keepdim=True) > -_INF
    weights: Tensor = torch.softmax(rows.masked_fill(~alive, 0.0), -1) * alive
    return weights


def weigh(
    key: Tensor,
    query_key: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    form: str,
    valid: Tensor | None,
) -> Tensor:
    """Weights [B, P, N] of a full softmax."""
    return _softmax(_masked(_scores(key, query_key, shrinkage, selection, form), valid))


def _best(rows: Tensor, k: int) -> Tensor:
    """Indices [B, P, k] of the k largest scores of every row [B, P, N], equal scores to the lower n.

    torch.topk leaves open which of several equal scores it takes, so rows where a tie straddles the k-th
    place (rare) are sorted stably.
    """
    top, index = rows.topk(k, dim=2)
    last = top[:, :, -1:]
    tied = (rows == last).sum(2) != (top == last).sum(2)
    if tied.any():
        index[tied] = rows[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return index


def affinity(
    key: Tensor,
    query_key: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    form: str,
    top_k: int | None,
    valid: Tensor | None,
) -> Tensor:
    """Dense affinity [B, N, P] (see ops.affinity.affinity)."""
    if top_k is None or top_k >= key.shape[2]:
        return weigh(key, query_key, shrinkage, selection, form, valid).mT
    rows = _masked(_scores(key, query_key, shrinkage, selection, form), valid)
    index = _best(rows.detach(), top_k)
    return torch.zeros_like(rows).scatter(2, index, _softmax(rows.gather(2, index))).mT


def _usage_of(weights: Tensor) -> Tensor:
    return (weights.detach().double() * _USAGE_ONE).round_().to(torch.int64)


@dataclass(frozen=True)
class Read:
    """A readout [B, O, CV, P]; usage [B, N], where asked for; and, where they are, what every position chose.

    index     [B, P, k] int32: n, no n twice; where there are fewer matches any n, or -1, with a weight of 0
    weight    [B, P, k]
    """

    readout: Tensor
    usage: Tensor | None
    index: Tensor | None
    weight: Tensor | None


Grads = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Of key, query_key, value, shrinkage and selection, each in its own shape and type."""


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
    need_chosen: bool = False,
) -> Read:
    """A read without gradients (see ops.readout.read_memory); what a full softmax chose is everything: None."""
    batch, objects, channels, elements = value.shape
    positions = query_key.shape[2]
    use = torch.zeros(batch, elements, dtype=torch.int64, device=key.device) if need_usage else None
    values = _wide(value)
    blocks, indices, shares = [], [], []
    with torch.no_grad(), torch.autocast(key.device.type, enabled=False):
        for part in blocks_of(positions, batch * elements):
            chosen = None if selection is None else selection[:, :, part]
            asked = (key, query_key[:, :, part], shrinkage, chosen, form)
            if top_k is None or top_k >= elements:
                weights = weigh(*asked, valid)
                blocks.append(_mix(values, weights))
                if use is not None:
                    use += _usage_of(weights).sum(1)
                continue
            rows = _masked(_scores(*asked), valid)
            index = _best(rows, top_k)
            weights = _softmax(rows.gather(2, index))
            blocks.append(_gather(values, index, weights))
            if use is not None:
                use.scatter_add_(1, index.flatten(1), _usage_of(weights).flatten(1))
            if need_chosen:
                indices.append(index.int())
                shares.append(weights)
        readout = torch.cat(blocks, 3) if blocks else values.new_zeros(batch, objects, channels, 0)
        usage = None if use is None else (use.double() / _USAGE_ONE).float()
    if not indices:
        return Read(readout.to(query_key.dtype), usage, None, None)
    return Read(readout.to(query_key.dtype), usage, torch.cat(indices, 1), torch.cat(shares, 1))


def blocks_of(positions: int, row: int) -> Iterator[slice]:
    """Positions in parts of which each has `row` numbers for every position, and _BLOCK of them or so in all."""
    step = max(1, _BLOCK // max(row, 1))
    return (slice(start, min(start + step, positions)) for start in range(0, positions, step))


def _mix(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [B, O, CV, P] of all values: values [B, O, CV, N], weights [B, P, N]."""
    weights = weights.to(values.dtype).mT
    if not values.is_contiguous():  # a bank's rows: one product per object, where flattening would copy the bank
        return torch.matmul(values, weights.unsqueeze(1))
    return (values.flatten(1, 2) @ weights).view(*values.shape[:3], weights.shape[2])


def _gather(values: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [B, O, CV, p] of the chosen elements' values: values [B, O, CV, N], index, weights [B, p, k]."""
    batch, objects, channels, _ = values.shape
    weights = weights.to(values.dtype)
    rows = [
        F.embedding_bag(index[b], values[b, o].t(), mode="sum", per_sample_weights=weights[b]).t()
        for b in range(batch)
        for o in range(objects)
    ]
    if not rows:
        return values.new_zeros(batch, objects, channels, index.shape[1])
    return torch.stack(rows).view(batch, objects, channels, index.shape[1])


def most_used(usage: Tensor, count: int, valid: Tensor | None) -> Tensor:
    """Indices [B, count] of the most used valid elements, most used first, equal usage to the lower index."""
    order = usage.double().masked_fill(usage.isnan(), -_INF)
    if valid is not None:
        # Two stable sorts: by usage, then invalid ones last.
        by_usage = order.sort(dim=1, descending=True, stable=True).indices
        last = (valid == 0).gather(1, by_usage).to(torch.uint8)
        return by_usage.gather(1, last.sort(dim=1, stable=True).indices)[:, :count]
    return order.sort(dim=1, descending=True, stable=True).indices[:, :count]


def consolidate(
    candidate_key: Tensor,
    candidate_shrinkage: Tensor,
    candidate_value: Tensor,
    candidate_selection: Tensor,
    index: Tensor,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Key [B, CK, P], shrinkage [B, P] and value [B, O, CV, P] of the prototypes at `index` (see ops.consolidate)."""
    at = index.unsqueeze(1).expand(-1, candidate_key.shape[1], -1)
    key = candidate_key.gather(2, at)
    selection = candidate_selection.gather(2, at)
    weights = weigh(candidate_key, key, candidate_shrinkage, selection, "anisotropic_l2", valid)
    values = _wide(candidate_value)
    value = _mix(values, weights)
    mixed = (_wide(candidate_shrinkage).unsqueeze(1) @ weights.mT).squeeze(1)
    return key, mixed.to(candidate_shrinkage.dtype), value.to(candidate_value.dtype)


def keep_most_used(usage: Tensor, keep: int) -> Tensor:
    """Indices, ascending, of the elements that survive (see ops.consolidate.keep_most_used)."""
    elements = usage.shape[0]
    if elements <= keep:
        return torch.arange(elements, device=usage.device)
    order = usage.double().masked_fill(usage.isnan(), -_INF)
    ranked = order.sort(descending=True, stable=True)
    survivors = (order > ranked.values[keep]).nonzero().squeeze(1)  # [keep] is the (N - keep)-th smallest
    return survivors if survivors.numel() else ranked.indices[:keep].sort().values


# The logit of the greatest probability that soft aggregation tells, 1 - 1e-7, and the least sum of softplus with it.
_LARGEST_LOGIT, _LEAST_SUM = math.log((1 - 1e-7) / 1e-7), 1e-7


def aggregate(logits: Tensor) -> Tensor:
    """Logits [B, O+1, h, w] (see ops.aggregate.aggregate).

    With s = sum_o log(1 + exp(logit_o)) the background q_0 = exp(-s) has the logit -log(exp(s) - 1).
    """
    x = _wide(logits)
    s = F.softplus(x).sum(1, keepdim=True).clamp(_LEAST_SUM, _LARGEST_LOGIT)
    return torch.cat([-torch.log(torch.expm1(s)), x.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)], 1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Readout [B, heads, P, CV] (see ops.attention.attend).

    torch's fused attention for the CPU takes keys and values of one width alone; others it computes densely, here a
    block of queries at a time where no gradient is kept.
    """
    rows = query.shape[0] * query.shape[1] * key.shape[2]
    fused = query.shape[3] == value.shape[3] or query.device.type != "cpu"
    if fused or backend.gradient_needed(query, key, value):
        return F.scaled_dot_product_attention(query, key, value)
    blocks = query.split(max(1, _BLOCK // max(rows, 1)), 2)
    return torch.cat([F.scaled_dot_product_attention(block, key, value) for block in blocks], 2)


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relative_key: Tensor,
    relative_bias: Tensor,
    relative_value: Tensor,
) -> Tensor:
    """Readout [B, C, Y, X] (see ops.attention.local_attention).

    Rows of queries meet whole rows of keys in a matrix product, of which the band |dx| <= reach is kept: products are
    wasted, but nothing of size YX x YX is ever made.
    """
    b, _, y, x = query.shape
    heads, places, d = relative_key.shape
    side = math.isqrt(places)
    n, reach = b * heads, side // 2

    def rows(maps: Tensor) -> Tensor:  # [B, C, y, x] as [B*heads, y, x, C/heads]
        return maps.unflatten(1, (heads, d)).permute(0, 1, 3, 4, 2).reshape(n, y, x, d)

    margin = (0, 0, reach, reach, reach, reach)
    keys, values = F.pad(rows(key), margin), F.pad(rows(value), margin)
    scaled = rows(query) / math.sqrt(d)
    scores = torch.stack(
        [_band(scaled @ keys[:, dy : dy + y].transpose(2, 3), side) for dy in range(side)], 3
    )  # [n, y, x, dy, dx]
    relative = F.conv2d(
        query, relative_key.reshape(heads * places, d, 1, 1), relative_bias.reshape(-1), groups=heads
    ).reshape(n, places, y, x)
    scores = scores.flatten(3) + relative.permute(0, 2, 3, 1)
    scores = scores.masked_fill(_outside(y, x, reach, query.device), -_INF)
    precise = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(3, dtype=precise).to(values.dtype)
    moved = weights.reshape(b, heads, y * x, places) @ relative_value.transpose(1, 2)
    out = moved.reshape(n, y, x, d)
    bands = weights.unflatten(3, (side, side))
    for dy in range(side):
        out = out + _unband(bands[:, :, :, dy]) @ values[:, dy : dy + y]
    return out.reshape(b, heads, y, x, d).permute(0, 1, 4, 2, 3).flatten(1, 2)


def _band(rows: Tensor, side: int) -> Tensor:
    """[..., x, x+side-1] to [..., x, side]: place dx of row i is column i+dx.

    Laid out with one more column a row, every row's band starts at column 0.
    """
    x, w = rows.shape[-2:]
    return F.pad(rows.flatten(-2), (0, x)).unflatten(-1, (x, w + 1))[..., :side]


def _unband(band: Tensor) -> Tensor:
    """[..., x, side] to [..., x, x+side-1] with zeros beside the band: `_band` the other way round."""
    x, side = band.shape[-2:]
    return F.pad(band, (0, x)).flatten(-2)[..., :-x].unflatten(-1, (x, x + side - 1))


def _outside(y: int, x: int, reach: int, device: torch.device) -> Tensor:
    """[y, x, places] bool: window places that lie outside of the map."""
    offset = torch.arange(-reach, reach + 1, device=device)

    def beyond(n: int) -> Tensor:
        at = torch.arange(n, device=device)[:, None] + offset
        return (at < 0) | (at >= n)

    return (beyond(y)[:, None, :, None] | beyond(x)[None, :, None, :]).flatten(2)
