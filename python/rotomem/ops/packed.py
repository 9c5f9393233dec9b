"""The memory side of a read, prepared once for each element instead of at every read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rotomem.ops import backend


class PackedKeys:
    """The keys of one memory as the native kernels want them, kept between reads; pass it to each read as `packed`.

    The first read packs all elements, later ones those that were added behind them. Whoever owns the memory calls
    `cut` when elements change or go. Reads by other backends leave it alone.
    """

    def __init__(self) -> None:
        self._kernel: Any = None
        self._made_for: tuple[object, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return 0 if self._kernel is None else int(self._kernel.nbytes)

    def cut(self, first: int) -> None:
        """Forget the elements from n = `first` on: they have changed, or gone."""
        if self._kernel is not None:
            self._kernel.cut(first)

    def brought_up(
        self, key: Tensor, shrinkage: Tensor | None, similarity: str, selected: bool, instructions: str
    ) -> object:
        """The kernel's object, holding every element of key [CK, N] and shrinkage [N], float32 on the CPU."""
        made_for = (key.shape[0], similarity, selected, instructions, shrinkage is None)
        if made_for != self._made_for:
            self._kernel = backend.kernels.PackedKeys(
                channels=key.shape[0], similarity=similarity, selected=selected, instructions=instructions
            )
            self._made_for = made_for
        self._kernel.extend(
            key=key.numpy(),
            shrinkage=None if shrinkage is None else shrinkage.numpy(),
            threads=torch.get_num_threads(),
        )
        return self._kernel
