"""A memory of a fixed number of frames (STReMN): that a frame leaves is decided here, which one by the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.models.interface import HeldFrame, MemoryElements

if TYPE_CHECKING:
    from rotomem.engine.memory import Pool

Choose = Callable[[MemoryElements, int, Sequence[HeldFrame]], int]
"""`VOSModel.choose_slot`."""


class Slots:
    """What a model decides by, of every frame in a pool that may leave, and the room that is made for the next.

    count    frames that may be held, the first one that the artist drew among them. Each further frame the artist
             draws has a slot of its own and stays: memory depends on the drawn frames, not on the shot's length.
    choose   the model's choice
    """

    def __init__(self, count: int, choose: Choose) -> None:
        self.count, self._choose = count, choose
        self._extra: dict[int, Tensor | None] = {}  # step -> [1, O, C, y, x] with the objects there were by then

    @property
    def nbytes(self) -> int:
        """Bytes held beside the pool."""
        return sum(x.numel() * x.element_size() for x in self._extra.values() if x is not None)

    def make_room(self, pool: Pool, arriving: MemoryElements, step: int, *, drawn: bool) -> None:
        """Let a frame go where all slots are taken; call it before the arriving one is appended."""
        pool.reserve(self.count * arriving.key.shape[-2] * arriving.key.shape[-1])
        if drawn:
            return
        steps = pool["frame"][~pool.drawn].unique().tolist()
        self._extra = {s: self._extra[s] for s in steps}  # others went with the last object that had seen them
        if len(steps) >= self.count - bool(pool.drawn.any()):
            gone = steps[self._choose(arriving, step, [self._held(pool, s) for s in steps])]
            pool.keep(pool["frame"] != gone)
            del self._extra[gone]
        self._extra[step] = arriving.extra

    def remove_object(self, row: int) -> None:
        """Forget the object in a row; later rows close up."""
        for step, extra in self._extra.items():
            if extra is not None:  # a row beyond its end is of an object that came later
                self._extra[step] = torch.cat([extra[:, :row], extra[:, row + 1 :]], 1)

    def _held(self, pool: Pool, step: int) -> HeldFrame:
        element = int((pool["frame"] == step).nonzero()[0, 0])
        seen = torch.cat([bucket.valid[element].expand(bucket.objects) for bucket in pool.buckets])
        extra = self._extra[step]
        if extra is not None:
            extra = F.pad(extra, (0, 0, 0, 0, 0, 0, 0, seen.shape[0] - extra.shape[1]))
        return HeldFrame(step, extra, seen)
