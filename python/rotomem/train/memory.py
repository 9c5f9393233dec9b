"""The memory of a training clip: all earlier frames, read by an ordinary softmax, with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from rotomem.errors import MemoryStateError
from rotomem.models.interface import MemoryElements, MemoryPlan, Query
from rotomem.ops.readout import read_memory


class ClipMemory:
    """What a model reads while it is trained; keys of the frames, or of every object where the plan says so."""

    def __init__(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self._kept: list[list[MemoryElements]] = [[] for _ in range(plan.layers)]
        self._chosen: list[int] | None = None

    def add(self, elements: Sequence[MemoryElements]) -> None:
        """Keep a frame: its elements, one a layer."""
        for kept, one in zip(self._kept, elements, strict=True):
            kept.append(one)

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        """Readout [B, O, CV, y, x]; see MemoryReader."""
        kept = self._offered(layer)
        y, x = query.key.shape[-2:]
        shrinkages = [e.shrinkage.flatten(1) for e in kept if e.shrinkage is not None]
        key = torch.cat([e.key.flatten(-2) for e in kept], -1)
        value = torch.cat([e.value.flatten(3) for e in kept], 3)
        asked = query.key.flatten(2)
        b, o = value.shape[:2]
        if self.plan.keys_per_object:  # every object is a memory of its own, asked the same
            key, value = key.flatten(0, 1), value.flatten(0, 1)[:, None]
            asked = asked.repeat_interleave(o, 0)
        readout = read_memory(
            key,
            asked,
            value,
            shrinkage=torch.cat(shrinkages, 1) if shrinkages else None,
            selection=None if query.selection is None else query.selection.flatten(2),
            top_k=None,
            similarity=self.plan.similarity,
        ).readout
        return readout.view(b, o, -1, y, x)

    def choose(self, references: int, rng: Generator) -> None:
        """Offer the next frame the first one and others by chance, `references` at most (XMem, "Training")."""
        frames = len(self._kept[0])
        others = torch.randperm(max(frames - 1, 0), generator=rng)[: references - 1] + 1
        self._chosen = [0, *sorted(others.tolist())]

    def _offered(self, layer: int) -> list[MemoryElements]:
        kept = self._kept[layer]
        return kept if self._chosen is None else [kept[i] for i in self._chosen]

    def latest(self, *, layer: int = 0) -> MemoryElements:
        """A clip keeps no frame apart from its memory frames."""
        raise MemoryStateError("a training clip keeps no latest frame", remedy="train a model that asks for none")
