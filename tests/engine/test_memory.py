"""A memory bank read as a whole: what is kept between reads, and what objects that came late see."""

from __future__ import annotations

import itertools
import types

import pytest
import torch
from torch import Tensor

from rotomem import ops
from rotomem.engine.consolidation import consolidate_if_full
from rotomem.engine.memory import MemoryBank, Store
from rotomem.engine.options import MemorySettings
from rotomem.models.interface import MemoryElements, MemoryPlan, Query
from rotomem.ops import backend

PLAN = MemoryPlan(key_dim=8, value_dim=6, similarity="anisotropic_l2", top_k=7, consolidates=True)
SETTINGS = MemorySettings(top_k=7, min_working_frames=2, max_working_frames=4, prototypes=9, max_long_term=20)


class Shot:
    """Frames of noise, one like the next."""

    def __init__(self) -> None:
        self.bank = MemoryBank(PLAN, SETTINGS, torch.device("cpu"))
        self.rng = torch.Generator().manual_seed(0)
        self.picture = torch.randn(1, 8, 4, 5, generator=self.rng)
        self.objects = 0

    def noise(self, channels: int) -> Tensor:
        return torch.randn(1, channels, 4, 5, generator=self.rng)

    def add(self, count: int) -> None:
        self.bank.add_objects(count)
        self.objects += count

    def memorise(self, step: int, store: Store = Store.WORKING) -> None:
        element = MemoryElements(
            key=self.picture + 0.1 * self.noise(8),
            value=torch.randn(1, self.objects, 6, 4, 5, generator=self.rng),
            shrinkage=1 + self.noise(1).square(),
            selection=self.noise(8).sigmoid(),
        )
        self.bank.memorise((element,), store=store, step=step)

    def read(self) -> tuple[Tensor, Tensor]:
        """What the bank reads, and what its buckets give one by one when nothing is kept."""
        query = Query(self.picture + 0.1 * self.noise(8), self.noise(8).sigmoid())
        assert query.selection is not None
        pool = self.bank.layers[0]
        before = pool["use"].clone()
        alone = [
            ops.read_memory(
                pool["key"].T[None],
                query.key.flatten(2),
                bucket.value[:, : pool.size].transpose(1, 2)[None],
                shrinkage=pool["shrinkage"][None],
                selection=query.selection.flatten(2),
                top_k=7,
                valid=bucket.valid[None, : pool.size],
                need_usage=True,
            )
            for bucket in pool.buckets
        ]
        read = self.bank.read(query)
        assert alone[0].usage is not None
        assert torch.allclose(pool["use"], before + alone[0].usage[0], atol=1e-5)
        return read.flatten(3), torch.cat([one.readout for one in alone], 1)


@pytest.mark.parametrize("name", backend.available())
def test_memory_when_elements_come_and_go_then_what_is_kept_follows(name: str) -> None:
    shot = Shot()
    with backend.use(name):
        sizes = []
        for step in range(14):
            if step in (0, 3, 4, 9):
                shot.add(2)
            shot.memorise(step, Store.PERMANENT if step == 0 else Store.LATEST if step % 4 == 2 else Store.WORKING)
            consolidate_if_full(shot.bank)
            if step == 11:
                shot.bank.remove_object(2)
                shot.objects -= 1
            sizes.append(shot.bank.size)
            read, alone = shot.read()
            assert torch.allclose(read, alone, atol=1e-5)
    assert min(b - a for a, b in itertools.pairwise(sizes)) < 0  # something was let go on the way


@pytest.mark.skipif(backend.kernels is None, reason="the native kernels are not built")
def test_memory_when_objects_came_on_several_frames_then_keys_are_compared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shot = Shot()
    for step in range(3):
        shot.add(1)
        shot.memorise(step)
    calls = []

    def topk_readout(**arguments: object) -> None:
        calls.append(arguments)
        real.topk_readout(**arguments)

    real = backend.kernels
    watched = types.SimpleNamespace(**{name: getattr(real, name) for name in dir(real) if not name.startswith("__")})
    watched.topk_readout = topk_readout
    monkeypatch.setattr(backend, "kernels", watched)
    query = Query(shot.picture, shot.noise(8).sigmoid())
    with backend.use("native"):
        shot.bank.read(query)
    assert len(calls) == 1
    assert calls[0]["packed"] is not None
