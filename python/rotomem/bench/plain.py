"""A model run the straightforward way: float32 torch, nothing folded, the memory read by the dense formula."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from rotomem.bench import peers
from rotomem.bench.cases import Inputs
from rotomem.engine.memory import MemoryBank
from rotomem.engine.session import Session
from rotomem.errors import UsageError
from rotomem.models.interface import Query
from rotomem.models.registry import REGISTRY, build_model, read_state_dict

_GAINS = {
    "key_proj.key_proj.weight": 3.0,
    "decoder.up_16_8.skip_conv.weight": 0.25,
    "decoder.up_8_4.skip_conv.weight": 0.25,
}
"""XMem's random weights are multiplied by these, or the memory would be lost in what the picture says."""


def state_dict(name: str) -> dict[str, Tensor]:
    """The bundled weights of a model of the registry; where there are none they are drawn, key by key.

    Random tensors have a spread of 1/sqrt(inputs of an output), norms lie around the identity; a name always gets the
    same numbers. Raises UsageError for a name there is none of.
    """
    if name not in REGISTRY:
        raise UsageError(f"no model called {name!r}", remedy="known models: " + ", ".join(REGISTRY))
    if file := REGISTRY[name].weights:
        return read_state_dict(file)
    return {key: _drawn(key, tensor) for key, tensor in build_model(name).state_dict().items()}


def _drawn(key: str, like: Tensor) -> Tensor:
    if not like.is_floating_point():
        return like
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    drawn = torch.randn(like.shape, generator=generator)
    if like.ndim > 1:
        return drawn * (_GAINS.get(key, 1.0) / math.sqrt(math.prod(like.shape[1:])))
    if key.endswith("running_var"):
        return 1 + 0.1 * drawn.abs()
    return (1.0 if key.endswith("weight") else 0.0) + 0.1 * drawn


def plain_session(name: str, weights: dict[str, Tensor], device: torch.device, size: int | None) -> Session:
    """A session to hold others against. Raises UsageError for a model whose memory is not one all objects share."""
    model = build_model(name, weights).to(device)
    if model.plan.keys_per_object or model.plan.layers > 1:
        raise UsageError(f"no dense reading is written for {name}", remedy="use xmem, xmem-s or stcn")
    session = Session(model, size=size)
    session.memory = _DenseBank(model.plan, session.settings, device, model.choose_slot)
    return session


class _DenseBank(MemoryBank):
    """A memory that is read as published: all of S, bucket by bucket."""

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        pool = self.layers[layer]
        y, x = query.key.shape[-2:]
        parts = []
        for i, bucket in enumerate(pool.buckets):
            seen = bucket.valid[: pool.size]
            asked = Inputs(
                pool["key"][seen].T[None],
                query.key.flatten(2),
                bucket.value[:, : pool.size][:, seen].transpose(1, 2)[None],
                pool["shrinkage"][seen][None],
                torch.ones_like(query.key).flatten(2) if query.selection is None else query.selection.flatten(2),
            )
            affinity = peers.affinity(peers.similarity(asked), min(self.settings.top_k or pool.size, pool.size))
            if i == 0 and self.plan.consolidates:
                pool["use"].add_(affinity.sum(2)[0])
                pool["life"].add_(1)
            parts.append(peers.weigh(asked.value, affinity))
        return torch.cat(parts, 1).view(1, -1, self.plan.value_dim, y, x)
