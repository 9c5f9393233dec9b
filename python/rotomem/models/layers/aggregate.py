"""Soft aggregation: what is said of objects one by one becomes one distribution over objects and background."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rotomem import ops

_EPSILON = 1e-7


def aggregate_logits(masks: Tensor) -> Tensor:
    """Logits whose softmax over objects is the aggregated distribution.

    q_0 = prod_i (1 - p_i), q_i = p_i, logit = log(q / (1 - q)) with q held inside [1e-7, 1 - 1e-7]: STM
    supplement, "soft aggregation". Always float32: in half precision 1 - 1e-7 is 1 and the logit infinite.

    masks     [B, O, h, w] 0..1
    returns   [B, O+1, h, w] float32, background first
    """
    p = masks.float()
    background = torch.prod(1 - p, dim=1, keepdim=True)
    q = torch.cat([background, p], dim=1).clamp(_EPSILON, 1 - _EPSILON)
    return torch.log(q / (1 - q))


def aggregate_object_logits(logits: Tensor) -> Tensor:
    """`aggregate_logits(sigmoid(logits))` without leaving the logits: nothing is lost to 1 - p, less is computed.

    logits    [B, O, h, w], one object against everything else
    returns   [B, O+1, h, w] float32, background first; see `ops.aggregate`
    """
    return ops.aggregate(logits)


_PASS_EPSILON = 1e-5


def join_passes(passes: Sequence[Tensor]) -> Tensor:
    """One distribution of what several passes say, each of them of its own objects (AOT's released code).

    The background is what every pass calls background, q_0 = prod_i p_i0; objects keep their p; q is held inside
    [1e-5, 1 - 1e-5] and weighed by its odds, as in `aggregate_logits`. One pass alone keeps its softmax.

    passes    logits [B, O_i+1, h, w], background first
    returns   probabilities [B, 1 + sum O_i, h, w] float32, background first, then the objects pass by pass
    """
    each = [logits.float().softmax(1) for logits in passes]
    if len(each) == 1:
        return each[0]
    background = torch.stack([p[:, :1] for p in each]).prod(0)
    q = torch.cat([background, *(p[:, 1:] for p in each)], 1).clamp(_PASS_EPSILON, 1 - _PASS_EPSILON)
    return torch.logit(q).softmax(1)
