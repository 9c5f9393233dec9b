"""Soft aggregation: one distribution of what is said of objects one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from rotomem.ops import _check, _cuda, _torch, backend


def aggregate(logits: Tensor) -> Tensor:
    """Logits whose softmax is one distribution over the background and all objects (STM, supplement).

    With p = sigmoid(logits), q_0 = prod_o (1 - p_o), q_o = p_o, held inside [1e-7, 1 - 1e-7]: log(q / (1 - q)).
    Computed from odds, so that nothing is lost to 1 - p: an object's logit is its own, and the background's odds are
    1 to prod_o (1 + exp(logit_o)) - 1.

    logits    [B, O, h, w]     an object against everything else, of any float type
    returns   [B, O+1, h, w]   float32 (float64 where logits are), background first

    Raises ShapeError for another shape or type; BackendError where a forced backend is absent.
    Cost: one pass over what goes in and comes out. Gradients flow in plain torch.
    Defined by kernels/aggregate/reference.py.
    """
    _check.shape("logits", logits, (None, None, None, None), "[B, O, h, w]")
    _check.floating("logits", logits)
    isa = backend.choose(logits, cuda=True)
    if isa is None:
        return _torch.aggregate(logits)
    if isa == "cuda":
        return _cuda.aggregate(logits)
    b, objects, h, w = logits.shape
    aggregated = torch.empty(b, objects + 1, h * w)
    backend.kernels.aggregate(
        logits=logits.detach().float().contiguous().flatten(2).numpy(),
        aggregated=aggregated.numpy(),
        threads=torch.get_num_threads(),
    )
    return aggregated.unflatten(2, (h, w))
