"""Norms that published checkpoints carry as constants, and tokens that are maps."""

from __future__ import annotations

from math import gcd
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose scale, offset, mean and variance are buffers: nothing trains, nothing counts batches."""

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            cast(Tensor, t) for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)


def freeze_norms(module: nn.Module) -> nn.Module:
    """Put a FrozenBatchNorm2d in the place of every BatchNorm2d inside `module`; returns `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features))
        else:
            freeze_norms(child)
    return module


def group_norms(module: nn.Module) -> nn.Module:
    """Put a GroupNorm (Wu and He 2018) in the place of every BatchNorm2d inside `module`; returns `module`.

    32 groups where the width allows it, as published; a narrow norm has fewer, of two channels or more each.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, group_norm(child.num_features))
        else:
            group_norms(child)
    return module


def group_norm(channels: int) -> nn.GroupNorm:
    """A GroupNorm whose number of groups follows from its width alone, so that a checkpoint need not tell it."""
    return nn.GroupNorm(gcd(32, max(channels // 2, 1)), channels)


def as_tokens(x: Tensor) -> Tensor:
    """[B, C, y, x] as [B, y*x, C]."""
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, y: int, x: int) -> Tensor:
    """[B, y*x, C] as [B, C, y, x]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, y, x)
