"""Object ids (the artist's), object rows (the tensor's), and passes of objects that share a row of the memory."""

from __future__ import annotations

from collections.abc import Iterable

from rotomem.errors import MemoryStateError
from rotomem.types import ObjectId


class ObjectRows:
    """Which object lies in which row of every per-object tensor of a session.

    Rows follow the order of first appearance and close up when an object is removed; ids never change.

    per_pass   objects that a model tells apart by identities and keeps in one row of its memory, together called a
               pass; 1 where every object has a row of its own, so that rows of objects and of the memory are the same

    An object stays in its pass, under its identity. Where one is removed its identity is not given again while the
    pass lives: the frames the artist drew still show the old object under it, and the new one would be taken for it.
    A pass without objects goes, and the identities with it.
    """

    def __init__(self, per_pass: int = 1) -> None:
        self.per_pass = per_pass
        self._ids: list[ObjectId] = []
        self._passes: list[list[ObjectId | None]] = []  # by identity; None where its object was removed
        self.removed: set[ObjectId] = set()

    @property
    def ids(self) -> tuple[ObjectId, ...]:
        """Ids in row order."""
        return tuple(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, object_id: ObjectId) -> bool:
        return object_id in self._ids

    def row(self, object_id: ObjectId) -> int:
        """Row of a known object."""
        return self._ids.index(object_id)

    @property
    def passes(self) -> int:
        """Rows of the memory."""
        return len(self._passes)

    def members(self, number: int) -> tuple[tuple[int, int], ...]:
        """Objects of one pass: the row of each, and its identity from 0."""
        held = enumerate(self._passes[number])
        return tuple((self._ids.index(i), identity) for identity, i in held if i is not None)

    def add(self, ids: Iterable[ObjectId]) -> tuple[ObjectId, ...]:
        """Give rows to the ids that have none yet; returns those, in the order they came."""
        new = tuple(dict.fromkeys(i for i in ids if i not in self._ids))
        assert not self.removed.intersection(new), "ids are never reused within a session"
        for object_id in new:
            with_room = (p for p in self._passes if len(p) < self.per_pass)
            held = next(with_room, None)
            if held is None:
                self._passes.append(held := [])
            held.append(object_id)
            self._ids.append(object_id)
        return new

    def remove(self, object_id: ObjectId) -> int | None:
        """Forget an object; returns the row of the memory that goes with it, None where others still need it."""
        if object_id not in self._ids:
            raise MemoryStateError(
                f"no object {object_id} in this session",
                remedy="known objects are " + (", ".join(map(str, self._ids)) or "none yet"),
            )
        self._ids.remove(object_id)
        self.removed.add(object_id)
        number = next(n for n, held in enumerate(self._passes) if object_id in held)
        held = self._passes[number]
        held[held.index(object_id)] = None
        if any(i is not None for i in held):
            return None
        del self._passes[number]
        return number
