"""Soft aggregation: independent object probabilities become one distribution over objects and background."""

from __future__ import annotations

import torch
from torch import Tensor

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
