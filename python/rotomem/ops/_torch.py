"""The ops in plain torch: differentiable, any device and float type; for training and machines without a build.

Same definitions as the kernels (kernels/*/reference.py), ties and empty cases included. Arguments have been
checked by the public functions. Half types are computed in float32. Without gradients, similarities exist for one
block of queries at a time, so that memory stays bounded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities held at once where no gradient is kept: 2**23 float32 are 32 MiB.
_BLOCK = 2**23

# Usage is summed in integers, a weight of 1 being 2**40: sums of integers do not depend on their order, so
# usage is the same for any number of threads and on any device.
_USAGE_ONE = 2.0**40

_INF = float("inf")


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def similarity(
    key: Tensor, query_key: Tensor, shrinkage: Tensor | None, selection: Tensor | None, form: str
) -> Tensor:
    """Dense similarity [B, N, P] (see ops.affinity.similarity), laid out as [B, P, N]: top-k runs along rows."""
    with torch.autocast(key.device.type, enabled=False):
        keys, query = _wide(key), _wide(query_key).transpose(1, 2)  # [B, CK, N], [B, P, CK]
        scale = 1.0 / math.sqrt(key.shape[1])
        if form == "dot":
            return ((query * scale) @ keys).transpose(1, 2)
        squares = keys * keys
        if selection is None:
            cross = (2.0 * query) @ keys
            square = squares.sum(1, keepdim=True)
            constant = (query * query).sum(2, keepdim=True)
        else:
            select = _wide(selection).transpose(1, 2)
            weighted = query * select
            cross = (2.0 * weighted) @ keys
            square = select @ squares
            constant = (query * weighted).sum(2, keepdim=True)
        difference = cross.sub_(square)
        if form == "anisotropic_l2":
            difference = difference.sub_(constant)
        if shrinkage is None:
            return (difference * scale).transpose(1, 2)
        return (difference * (scale * _wide(shrinkage)).unsqueeze(1)).transpose(1, 2)


def _masked(scores: Tensor, valid: Tensor | None) -> Tensor:
    """Scores with everything that is not a finite number of a valid element set to -inf."""
    usable = torch.isfinite(scores)
    if valid is not None:
        usable = usable & (valid != 0).unsqueeze(2)
    return scores.masked_fill(~usable, -_INF)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over dim 1; a column without any finite score gets weights of zero instead of NaN."""
    alive = scores.amax(1, keepdim=True) > -_INF
    weights: Tensor = torch.softmax(scores.masked_fill(~alive, 0.0), 1) * alive
    return weights


def _best(scores: Tensor, k: int) -> Tensor:
    """Indices [B, k, P] of the k largest scores [B, N, P] of every column, equal scores to the lower n.

    torch.topk leaves open which of several equal scores it takes, so columns where a tie straddles the k-th
    place (rare) are sorted stably.
    """
    if k >= scores.shape[1]:
        return torch.arange(k, device=scores.device)[None, :, None].expand(scores.shape[0], -1, scores.shape[2])
    top, index = scores.topk(k, dim=1)
    last = top[:, -1:, :]
    tied = ((scores == last).sum(1) != (top == last).sum(1)).nonzero(as_tuple=True)
    if tied[0].numel():
        columns = scores[tied[0], :, tied[1]]  # [M, N]
        ordered = columns.sort(dim=1, descending=True, stable=True).indices[:, :k]
        index[tied[0], :, tied[1]] = ordered
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
    scores = _masked(similarity(key, query_key, shrinkage, selection, form), valid)
    if top_k is None or top_k >= scores.shape[1]:
        return _softmax(scores)
    index = _best(scores.detach(), top_k)
    weights = _softmax(scores.gather(1, index))
    return torch.zeros_like(scores).scatter(1, index, weights)


def _usage_of(weights: Tensor) -> Tensor:
    return (weights.detach().double() * _USAGE_ONE).round_().to(torch.int64)


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
) -> tuple[Tensor, Tensor | None]:
    """Readout [B, O, CV, P] and usage [B, N] (see ops.readout.read_memory)."""
    batch, objects, channels, elements = value.shape
    positions = query_key.shape[2]
    tensors = (key, query_key, value, shrinkage, selection)
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    block = positions if grad else max(1, _BLOCK // max(batch * elements, 1))
    use = torch.zeros(batch, elements, dtype=torch.int64, device=key.device) if need_usage else None
    values = _wide(value)
    blocks: list[Tensor] = []
    with torch.autocast(key.device.type, enabled=False):
        for start in range(0, positions, max(block, 1)):
            part = slice(start, start + block)
            chosen = None if selection is None else selection[:, :, part]
            scores = _masked(similarity(key, query_key[:, :, part], shrinkage, chosen, form), valid)
            if top_k is None or top_k >= elements:
                weights = _softmax(scores)
                blocks.append(_mix(values, weights))
                if use is not None:
                    use += _usage_of(weights).sum(2)
            else:
                index = _best(scores.detach(), top_k)  # [B, k, p]
                weights = _softmax(scores.gather(1, index))
                blocks.append(_gather(values, index, weights.to(values.dtype)))
                if use is not None:
                    use.scatter_add_(1, index.flatten(1), _usage_of(weights).flatten(1))
    if blocks:
        readout = torch.cat(blocks, 3) if len(blocks) > 1 else blocks[0]
    else:
        readout = values.new_zeros(batch, objects, channels, 0)
    usage = None if use is None else (use.double() / _USAGE_ONE).float()
    return readout.to(query_key.dtype), usage


def _mix(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [B, O, CV, P] of all values: values [B, O, CV, N], weights [B, N, P]."""
    weights = weights.to(values.dtype)
    if not values.is_contiguous():  # a bank's rows: one product per object, where flattening would copy the bank
        return torch.matmul(values, weights.unsqueeze(1))
    return (values.flatten(1, 2) @ weights).view(*values.shape[:3], weights.shape[2])


def _gather(values: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [B, O, CV, p] of the chosen elements' values: values [B, O, CV, N], index, weights [B, k, p]."""
    batch, objects, channels, _ = values.shape
    rows = []
    for b in range(batch):
        bag, weight = index[b].t().contiguous(), weights[b].t().contiguous()
        for o in range(objects):
            table = values[b, o].t()  # [N, CV]
            rows.append(F.embedding_bag(bag, table, mode="sum", per_sample_weights=weight).t())
    if not rows:
        return values.new_zeros(batch, objects, channels, index.shape[2])
    return torch.stack(rows).view(batch, objects, channels, index.shape[2])


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
    weights = affinity(candidate_key, key, candidate_shrinkage, selection, "anisotropic_l2", None, valid)
    values = _wide(candidate_value)
    value = _mix(values, weights)
    mixed = (_wide(candidate_shrinkage).unsqueeze(1) @ weights).squeeze(1)
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
