"""Object ids (the artist's) and object rows (the tensor's)."""

from __future__ import annotations

from collections.abc import Iterable

from rotomem.errors import MemoryStateError
from rotomem.types import ObjectId


class ObjectRows:
    """Which object lies in which row of every per-object tensor of a session.

    Rows follow the order of first appearance and close up when an object is removed; ids never change.
    """

    def __init__(self) -> None:
        self._ids: list[ObjectId] = []
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

    def add(self, ids: Iterable[ObjectId]) -> tuple[ObjectId, ...]:
        """Give rows to the ids that have none yet; returns those, in the order they came."""
        new = tuple(dict.fromkeys(i for i in ids if i not in self._ids))
        assert not self.removed.intersection(new), "ids are never reused within a session"
        self._ids.extend(new)
        return new

    def remove(self, object_id: ObjectId) -> int:
        """Forget an object; returns the row that was its own."""
        if object_id not in self._ids:
            raise MemoryStateError(
                f"no object {object_id} in this session",
                remedy="known objects are " + (", ".join(map(str, self._ids)) or "none yet"),
            )
        row = self._ids.index(object_id)
        del self._ids[row]
        self.removed.add(object_id)
        return row
