"""Losses of the STM line, generalised from labels to fractional coverage.

With hard targets they are those of XMem's training code. With soft ones they reach zero exactly where the prediction
equals the coverage: cross-entropy less the target's own entropy, and overlap by the smaller of the two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def dice_loss(
    probability: Tensor, target: Tensor, weight: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """1 - (2 * overlap + 1) / (sum p + sum g + 1), mean over objects.

    probability, target   [B, O, h, w] 0..1, without the background
    weight                [B, O], which objects count; None counts all
    count                 what the sum over objects is divided by; None: the weights' sum, at least 1
    """
    overlap = torch.minimum(probability, target).sum((2, 3))
    total = probability.sum((2, 3)) + target.sum((2, 3))
    return _mean(1 - (2 * overlap + 1) / (total + 1), weight, count)


def boundary_loss(
    probability: Tensor, target: Tensor, weight: Tensor | None = None, count: Tensor | None = None, *, scales: int = 3
) -> Tensor:
    """How far edges of prediction and truth differ: 0 where they are the same, 1 where none is where it should be.

    Edges are the differences between neighbours, dp and dg: sum |dp - dg| / sum(|dp| + |dg|), as the Bray-Curtis
    distance; a soft edge in a soft place costs nothing. The mean over the picture and its halvings, so that an edge
    that is a few pixels off is still drawn to its place. Arguments as for `dice_loss`; h and w at least 2**scales.
    """
    total = probability.new_zeros(probability.shape[:2])
    for scale in range(scales):
        p, g = (F.avg_pool2d(x, 2**scale) if scale else x for x in (probability, target))
        apart, both = torch.zeros_like(total), torch.zeros_like(total)
        for dim in (2, 3):
            dp, dg = p.diff(dim=dim), g.diff(dim=dim)
            apart = apart + (dp - dg).abs().sum((2, 3))
            both = both + (dp.abs() + dg.abs()).sum((2, 3))
        total = total + apart / both.clamp_min(1e-6)
    return _mean(total / scales, weight, count)


def _mean(loss: Tensor, weight: Tensor | None, count: Tensor | None) -> Tensor:
    """Mean over objects of [B, O]."""
    if weight is None:
        return loss.mean()
    weight = weight.to(loss.dtype)
    return (loss * weight).sum() / (weight.sum().clamp_min(1) if count is None else count)


def soft_jaccard(probability: Tensor, target: Tensor, *, void: Tensor | None = None) -> Tensor:
    """1 - sum p g / sum (p + g - p g), mean over what each picture shows, background included (AOT's second loss).

    probability, target   [B, K, h, w] 0..1, background first
    void                  [B, h, w] bool, pixels that do not count
    """
    if void is not None:
        probability, target = (x.masked_fill(void[:, None], 0) for x in (probability, target))
    both = (probability * target).sum((2, 3))
    either = (probability + target).sum((2, 3)) - both
    shown = target.flatten(2).any(2).to(both.dtype)
    share = ((both + 1e-6) / (either + 1e-6) * shown).sum(1) / shown.sum(1).clamp_min(1)
    return 1 - share.mean()


def with_background(coverage: Tensor) -> Tensor:
    """Coverage of the objects [B, O, h, w] as a distribution [B, O+1, h, w], background first."""
    return torch.cat([(1 - coverage.sum(1, keepdim=True)).clamp_min(0), coverage], 1)


def soft_overlap(probability: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of two coverages, [..., h, w] to [...]; 1 where both are empty."""
    smaller = torch.minimum(probability, target).sum((-2, -1))
    larger = torch.maximum(probability, target).sum((-2, -1))
    return torch.where(larger > 0, smaller / larger.clamp_min(1e-6), torch.ones_like(larger))
