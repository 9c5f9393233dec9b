"""A network with seeded weights, small enough to track in a test."""

from __future__ import annotations

from dataclasses import replace

import torch

from rotomem.models.xmem import XMEM_S, XMem


def tiny_model(seed: int = 0) -> XMem:
    """Random weights, made steep enough that pictures and masks show in its answer."""
    config = replace(
        XMEM_S,
        key_stem=8,
        key_planes=(8, 12, 16),
        key_depths=(1, 1, 1),
        value_stem=8,
        value_planes=(8, 8, 12),
        key_dim=16,
        value_dim=16,
        sensory_dim=8,
        decoder=(16, 16, 8),
        update_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = XMem(config).eval()
    with torch.no_grad():
        model.decoder.pred.weight.mul_(20)
    return model
