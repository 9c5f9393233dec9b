"""Losses of the STM line, generalised from labels to fractional coverage.

With hard targets they are those of XMem's training code. With soft ones they reach zero exactly where the prediction
equals the coverage: cross-entropy less the target's own entropy, and overlap by the smaller of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bootstrap_share(step: float, *, start: float = 20_000, end: float = 70_000, least: float = 0.15) -> float:
    """Share of the pixels, hardest first, that the cross-entropy looks at: all, then linearly down to `least`.

    `step`, `start` and `end` are in one unit: iterations as XMem has them, or progress 0..1.
    """
    if step < start:
        return 1.0
    if step > end:
        return least
    return least + (1 - least) * (end - step) / (end - start)


def bootstrapped_cross_entropy(
    logits: Tensor, target: Tensor, share: float = 1.0, *, void: Tensor | None = None
) -> Tensor:
    """Mean over the hardest `share` of each picture's pixels of the divergence of prediction from target.

    logits   [B, K, h, w] float32, background first
    target   [B, K, h, w] 0..1, summing to 1 over K
    void     [B, h, w] bool, pixels that count as right whatever is said of them
    """
    divergence = torch.xlogy(target, target).sum(1) - (target * torch.log_softmax(logits, 1)).sum(1)
    if void is not None:
        divergence = divergence.masked_fill(void, 0)
    flat = divergence.flatten(1)
    if share < 1:
        flat = flat.topk(int(flat.shape[1] * share), dim=1, sorted=False).values
    return flat.mean()


def dice_loss(probability: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - (2 * overlap + 1) / (sum p + sum g + 1), mean over objects.

    probability, target   [B, O, h, w] 0..1, without the background
    weight                [B, O], which objects count; None counts all
    """
    overlap = torch.minimum(probability, target).sum((2, 3))
    total = probability.sum((2, 3)) + target.sum((2, 3))
    loss = 1 - (2 * overlap + 1) / (total + 1)
    if weight is None:
        return loss.mean()
    weight = weight.to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp_min(1)


def with_background(coverage: Tensor) -> Tensor:
    """Coverage of the objects [B, O, h, w] as a distribution [B, O+1, h, w], background first."""
    return torch.cat([(1 - coverage.sum(1, keepdim=True)).clamp_min(0), coverage], 1)


def soft_overlap(probability: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of two coverages, [..., h, w] to [...]; 1 where both are empty."""
    smaller = torch.minimum(probability, target).sum((-2, -1))
    larger = torch.maximum(probability, target).sum((-2, -1))
    return torch.where(larger > 0, smaller / larger.clamp_min(1e-6), torch.ones_like(larger))
