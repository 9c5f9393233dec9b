"""The memory of a training clip: all earlier frames, read by an ordinary softmax, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from rotomem.errors import MemoryStateError
from rotomem.models.interface import MemoryElements, MemoryPlan, Query
from rotomem.ops import _torch as ops


class ClipMemory:
    """What a model reads while it is trained; one layer of memory, keys shared by the objects."""

    def __init__(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self._kept: list[MemoryElements] = []

    def add(self, elements: MemoryElements) -> None:
        """Keep a frame."""
        self._kept.append(elements)

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        """Readout [B, O, CV, y, x]; see MemoryReader."""
        y, x = query.key.shape[-2:]
        shrinkages = [e.shrinkage.flatten(1) for e in self._kept if e.shrinkage is not None]
        readout, _ = ops.read_memory(
            torch.cat([e.key.flatten(2) for e in self._kept], 2),
            query.key.flatten(2),
            torch.cat([e.value.flatten(3) for e in self._kept], 3),
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
