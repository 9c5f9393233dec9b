from __future__ import annotations

import pytest
import torch

from rotomem.models.interface import MemoryElements, MemoryPlan, Query
from rotomem.train.memory import ClipMemory


def elements(seed: int, *, per_object: bool) -> MemoryElements:
    rng = torch.Generator().manual_seed(seed)
    shape = (2, 3, 4, 2, 5) if per_object else (2, 4, 2, 5)
    return MemoryElements(torch.randn(shape, generator=rng), torch.randn(2, 3, 6, 2, 5, generator=rng))


def test_read_when_keys_are_the_objects_then_each_object_is_read_by_its_own() -> None:
    plan = MemoryPlan(key_dim=4, value_dim=6, similarity="dot", top_k=None, keys_per_object=True)
    memory, frames = ClipMemory(plan), [elements(i, per_object=True) for i in range(2)]
    for frame in frames:
        memory.add((frame,))
    query = torch.randn(2, 4, 2, 5)
    readout = memory.read(Query(query))
    assert readout.shape == (2, 3, 6, 2, 5)
    for o in range(3):
        key = torch.cat([f.key[:, o].flatten(2) for f in frames], 2)
        value = torch.cat([f.value[:, o].flatten(2) for f in frames], 2)
        weight = torch.softmax(key.mT @ query.flatten(2) / 2, 1)
        torch.testing.assert_close(readout[:, o].flatten(2), value @ weight)


@pytest.mark.parametrize(("references", "offered"), [(1, 1), (3, 3), (9, 5)])
def test_choose_when_frames_are_many_then_the_first_is_always_offered(references: int, offered: int) -> None:
    plan = MemoryPlan(key_dim=4, value_dim=6, similarity="l2", top_k=None)
    memory = ClipMemory(plan)
    for i in range(5):
        one = elements(i, per_object=False)
        memory.add((MemoryElements(one.key, torch.full_like(one.value, float(i))),))
    rng, reached = torch.Generator().manual_seed(0), set()
    for _ in range(20):
        memory.choose(references, rng)
        values = {int(e.value[0, 0, 0, 0, 0]) for e in memory._offered(0)}
        assert 0 in values and len(values) == offered
        reached |= values
    assert len(reached) == (1 if references == 1 else 5)
