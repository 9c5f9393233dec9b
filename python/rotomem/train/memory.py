"""The memory of a training clip: all earlier frames, read by an ordinary softmax, with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rotomem.errors import MemoryStateError
from rotomem.models.interface import MemoryElements, MemoryPlan, Query
from rotomem.ops import _torch as ops


class ClipMemory:
    """What a model reads while it is trained; keys shared by the objects."""

    def __init__(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self._kept: list[list[MemoryElements]] = [[] for _ in range(plan.layers)]

    def add(self, elements: Sequence[MemoryElements]) -> None:
        """Keep a frame: its elements, one a layer."""
        for kept, one in zip(self._kept, elements, strict=True):
            kept.append(one)

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        """Readout [B, O, CV, y, x]; see MemoryReader."""
        kept = self._kept[layer]
        y, x = query.key.shape[-2:]
        shrinkages = [e.shrinkage.flatten(1) for e in kept if e.shrinkage is not None]
        readout, _ = ops.read_memory(
            torch.cat([e.key.flatten(2) for e in kept], 2),
            query.key.flatten(2),
            torch.cat([e.value.flatten(3) for e in kept], 3),
            torch.cat(shrinkages, 1) if shrinkages else None,
            None if query.selection is None else query.selection.flatten(2),
            None,
            self.plan.similarity,
            None,
            False,
        )
        return readout.view(*readout.shape[:3], y, x)

    def latest(self, *, layer: int = 0) -> MemoryElements:
        """A clip keeps no frame apart from its memory frames."""
        raise MemoryStateError("a training clip keeps no latest frame", remedy="train a model that asks for none")
