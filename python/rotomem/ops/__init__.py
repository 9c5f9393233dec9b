"""Operations on the memory: similarity, affinity, readout, consolidation, forgetting. Torch tensors, batch first."""

from __future__ import annotations

from rotomem.ops import backend
from rotomem.ops.affinity import affinity, similarity
from rotomem.ops.aggregate import aggregate
from rotomem.ops.attention import attend, local_attention
from rotomem.ops.consolidate import Prototypes, consolidate, keep_most_used
from rotomem.ops.packed import PackedKeys
from rotomem.ops.readout import Readout, read_groups, read_memory

__all__ = [
    "PackedKeys",
    "Prototypes",
    "Readout",
    "affinity",
    "aggregate",
    "attend",
    "backend",
    "consolidate",
    "keep_most_used",
    "local_attention",
    "read_groups",
    "read_memory",
    "similarity",
]
