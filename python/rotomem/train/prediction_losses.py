"""Losses of video prediction (STReMN, section 4.2): shrinkage on L1 and L2, and the scale-invariant gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def shrinkage(error: Tensor, power: int, *, speed: float = 10.0, place: float = 0.2) -> Tensor:
    """Mean of e**power / (1 + exp(speed * (place - e))): small errors, which most pixels have, count for less than
    they are (Lu et al., ECCV 2018, eq. 5, without its weight for the target's value).

    error   absolute, any shape
    """
    return (error**power * torch.sigmoid(speed * (error - place))).mean()


def gradient_loss(a: Tensor, b: Tensor, *, steps: Sequence[int] = (1, 2, 4, 8, 16), least: float = 1e-2) -> Tensor:
    """Scale-invariant gradient loss (Ummenhofer et al., CVPR 2017, eqs. 2 and 3): mean over positions, sum over steps
    of |g(a) - g(b)|, where g is the difference to the pixel `step` to the right and below, divided by the sum of both
    magnitudes.

    a, b    [B, C, h, w]
    steps   those that fit into the picture count
    least   of that sum, so that black pixels do not decide
    """
    total = a.new_zeros(())
    for step in steps:
        if step < min(a.shape[-2:]):
            distance = _relative(a, step, least) - _relative(b, step, least)
            # The length of a vector has no gradient at 0, where prediction and truth agree.
            total = total + (distance.square().sum(-1) + 1e-12).sqrt().mean()
    return total


def _relative(x: Tensor, step: int, least: float) -> Tensor:
    """Differences to the right and below, [B, C, h - step, w - step, 2]."""
    here = x[..., :-step, :-step]
    there = torch.stack([x[..., :-step, step:], x[..., step:, :-step]], -1)
    return (there - here[..., None]) / (there.abs() + here[..., None].abs()).clamp_min(least)


def prediction_losses(predicted: Tensor, truth: Tensor, *, gradient: float = 0.1) -> dict[str, Tensor]:
    """Scalars of predicted frames [B, 3, h, w] 0..1; "loss" is what is minimised.

    gradient   weight of the gradient loss; the paper gives none
    """
    error = (predicted - truth).abs()
    one, two = shrinkage(error, 1), shrinkage(error, 2)
    edges = gradient_loss(predicted, truth)
    return {"loss": one + two + gradient * edges, "shrunk_l1": one, "shrunk_l2": two, "gradient": edges}
