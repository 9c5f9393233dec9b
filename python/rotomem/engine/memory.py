"""Working, long-term, permanent and short-term memory of one shot behind one MemoryBank (XMem, sections 3.2 and 3.3).

All elements of a layer lie in one pool, each marked with the store it belongs to. Keys, shrinkage, selection and
usage are shared by all objects; values are per object. Objects that appeared on the same frame form a bucket:
they have seen the same elements, so one `valid` row per bucket says which elements of the pool they may read.
Nothing is ever matched by position from the end, so a late object's values stay with their keys whatever is
consolidated or forgotten around them. Where keys depend on the mask (STM, AOT) they lie in the bucket, beside the
values. A model with identities (AOT) has a row for every pass of objects where others have one for every object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

import torch
from torch import Tensor

from rotomem.engine.options import MemorySettings
from rotomem.engine.slots import Choose, Slots
from rotomem.errors import EmptyMemoryError, MemoryStateError, UsageError
from rotomem.models.interface import MemoryElements, MemoryPlan, Query
from rotomem.ops.affinity import similarity
from rotomem.ops.attention import attend
from rotomem.ops.packed import PackedKeys
from rotomem.ops.readout import read_groups, read_memory

# Life of an element that no query has met yet, so that usage / life is 0 and not 0/0 (XMem's own value).
_NEWBORN = 1e-7


class Store(IntEnum):
    """Which memory an element belongs to."""

    LONG_TERM = 0
    WORKING = 1
    PERMANENT = 2
    LATEST = 3  # the previous frame where it is no memory frame; gives way to the next frame that is kept


@dataclass
class Bucket:
    """Objects that appeared on the same frame; for a model with identities, passes that did.

    value    [O, capacity, CV] float32; rows of elements they have not seen are never read
    valid    [capacity] bool, elements they have seen
    key      [O, capacity, CK] float32 where the plan says keys_per_object, else [O, capacity, 0]
    """

    value: Tensor
    valid: Tensor
    key: Tensor

    @property
    def objects(self) -> int:
        return self.value.shape[0]


@dataclass
class Pool:
    """Elements of one layer; the first `size` rows of every tensor are in use.

    key, selection [capacity, CK] (CK = 0 where every object has keys of its own), shrinkage, use and life [capacity]
    float32; store [capacity] int8 and frame [capacity] int64 (the step an element was memorised on; prototypes: -1);
    packed: what reading makes of key and shrinkage, which nobody writes but append and keep
    """

    plan: MemoryPlan
    device: torch.device
    size: int = 0
    capacity: int = 0
    buckets: list[Bucket] = field(default_factory=list)
    packed: PackedKeys = field(default_factory=PackedKeys)

    def __post_init__(self) -> None:
        self._rows: dict[str, Tensor] = {}
        shared = 0 if self.plan.keys_per_object else self.plan.key_dim
        for name, shape, dtype in (
            ("key", (shared,), torch.float32),
            ("selection", (shared,), torch.float32),
            ("shrinkage", (), torch.float32),
            ("use", (), torch.float32),
            ("life", (), torch.float32),
            ("store", (), torch.int8),
            ("frame", (), torch.int64),
        ):
            self._rows[name] = torch.zeros((0, *shape), dtype=dtype, device=self.device)

    def __getitem__(self, name: str) -> Tensor:
        """One of the shared columns, cut to the elements in use."""
        return self._rows[name][: self.size]

    def of(self, store: Store) -> Tensor:
        """[size] bool: elements of one store."""
        return self["store"] == int(store)

    @property
    def drawn(self) -> Tensor:
        """[size] bool: elements of frames that the artist drew."""
        return self.of(Store.PERMANENT)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, spare capacity included; packed keys count for themselves."""
        tensors = [*self._rows.values(), *(t for b in self.buckets for t in (b.value, b.valid, b.key))]
        return sum(t.numel() * t.element_size() for t in tensors)

    def usage(self) -> Tensor:
        """[size]: affinity received per frame alive (section 3.3, "prototype selection")."""
        return self["use"] / self["life"]

    def reserve(self, count: int) -> None:
        """Make room for `count` elements in all, growing by half so that copies stay rare."""
        if count <= self.capacity:
            return
        self.capacity = max(count, self.capacity + self.capacity // 2)
        for name, rows in self._rows.items():
            self._rows[name] = _grown(rows, self.capacity, 0, self.size)
        for bucket in self.buckets:
            bucket.value = _grown(bucket.value, self.capacity, 1, self.size)
            bucket.valid = _grown(bucket.valid, self.capacity, 0, self.size)
            bucket.key = _grown(bucket.key, self.capacity, 1, self.size)

    def append(
        self,
        key: Tensor,
        shrinkage: Tensor | None,
        selection: Tensor | None,
        values: list[Tensor],
        valid: list[Tensor | None],
        store: Store,
        step: int,
        keys: list[Tensor] | None = None,
    ) -> None:
        """Add n elements.

        key [n, CK], shrinkage [n] or None (ones), selection [n, CK] or None (ones);
        values: [O, n, CV] a bucket; valid: [n] bool a bucket, None for all; keys: [O, n, CK] a bucket where objects
        have their own, None where they share
        """
        n = key.shape[0]
        self.reserve(self.size + n)
        span = slice(self.size, self.size + n)
        for name, rows in (
            ("key", key),
            ("shrinkage", 1.0 if shrinkage is None else shrinkage),
            ("selection", 1.0 if selection is None else selection),
            ("use", 0.0),
            ("life", _NEWBORN),
            ("store", int(store)),
            ("frame", step),
        ):
            self._rows[name][span] = rows
        for bucket, value, seen in zip(self.buckets, values, valid, strict=True):
            bucket.value[:, span] = value
            bucket.valid[span] = True if seen is None else seen
        for bucket, own in zip(self.buckets, keys or (), strict=keys is not None):
            bucket.key[:, span] = own
        self.size += n

    def keep(self, mask: Tensor) -> None:
        """Let every element go where `mask` [size] is False; the others close up in order."""
        gone = (~mask).nonzero()[:, 0]
        if not gone.numel():
            return
        first, n = int(gone[0]), self.size - gone.numel()  # what lies before the first to go need not move
        index = first + mask[first:].nonzero()[:, 0]
        self.packed.cut(first)
        for rows in self._rows.values():
            rows[first:n] = rows[index]
        for bucket in self.buckets:
            bucket.value[:, first:n] = bucket.value[:, index]
            bucket.key[:, first:n] = bucket.key[:, index]
            bucket.valid[first:n] = bucket.valid[index]
            bucket.valid[n:] = False
        self.size = n

    def add_bucket(self, objects: int) -> None:
        """Room for objects that have seen none of the elements so far."""
        own = self.plan.key_dim if self.plan.keys_per_object else 0
        self.buckets.append(
            Bucket(
                torch.zeros((objects, self.capacity, self.plan.value_dim), device=self.device),
                torch.zeros(self.capacity, dtype=torch.bool, device=self.device),
                torch.zeros((objects, self.capacity, own), device=self.device),
            )
        )

    def remove_row(self, row: int) -> None:
        """Forget the object in row `row`; elements that nobody can read any more go with it."""
        for i, bucket in enumerate(self.buckets):
            if row < bucket.objects:
                bucket.value = torch.cat([bucket.value[:row], bucket.value[row + 1 :]])
                bucket.key = torch.cat([bucket.key[:row], bucket.key[row + 1 :]])
                if bucket.objects == 0:
                    del self.buckets[i]
                break
            row -= bucket.objects
        seen = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        for bucket in self.buckets:
            seen |= bucket.valid[: self.size]
        if not bool(seen.all()):
            self.keep(seen)


def _grown(rows: Tensor, capacity: int, dim: int, used: int) -> Tensor:
    shape = list(rows.shape)
    shape[dim] = capacity
    grown = rows.new_zeros(shape)
    grown.narrow(dim, 0, used).copy_(rows.narrow(dim, 0, used))
    return grown


class MemoryBank:
    """What a session remembers of its shot, for every layer of its model.

    The number of elements is bounded by the settings and by the keys the artist pins, never by the length of
    the shot (unless `long_term` is off).
    """

    def __init__(
        self, plan: MemoryPlan, settings: MemorySettings, device: torch.device, choose: Choose | None = None
    ) -> None:
        unkept = {
            "slots without a choice, or of several layers": plan.slots is not None
            and (choose is None or plan.layers > 1),
            "heads without keys_per_object": plan.heads != 1 and not plan.keys_per_object,
        }
        if declared := [name for name, is_so in unkept.items() if is_so]:
            raise UsageError(
                f"no session keeps what this model's plan declares: {', '.join(declared)}",
                remedy="run a model that declares none of it",
            )
        self.plan = plan
        self.settings = settings
        self.layers = [Pool(plan, device) for _ in range(plan.layers)]
        self._latest: list[MemoryElements | None] = [None] * plan.layers
        self.spacing = 1
        """How many times `mem_every` lies between two memory frames: 1 but in a memory that filled its limit."""
        self._slots = Slots(plan.slots, choose) if plan.slots is not None and choose is not None else None

    @property
    def size(self) -> int:
        """Elements in the first layer."""
        return self.layers[0].size

    @property
    def nbytes(self) -> int:
        """Bytes held by all tensors and packed keys, spare capacity included."""
        return sum(pool.nbytes + pool.packed.nbytes for pool in self.layers) + self._bytes_beside

    @property
    def filled_bytes(self) -> int:
        """Bytes of what is remembered, without spare capacity and packed keys."""
        return sum(pool.nbytes * pool.size // max(pool.capacity, 1) for pool in self.layers) + self._bytes_beside

    @property
    def _bytes_beside(self) -> int:
        """Held beside the pools: the latest frame, and what slots are chosen by."""
        latest = sum(t.numel() * t.element_size() for e in self._latest if e is not None for t in (e.key, e.value))
        return latest + (self._slots.nbytes if self._slots is not None else 0)

    def add_objects(self, count: int) -> None:
        """Rows for `count` objects (of a model with identities: passes) that appear now."""
        for pool in self.layers:
            pool.add_bucket(count)

    def remove_object(self, row: int) -> None:
        """Forget the object in a row; later rows close up."""
        for layer, pool in enumerate(self.layers):
            pool.remove_row(row)
            latest = self._latest[layer]
            if latest is not None:
                self._latest[layer] = self._without(latest, row)
        if self._slots is not None:
            self._slots.remove_object(row)

    def _without(self, e: MemoryElements, row: int) -> MemoryElements:
        """The elements less one row of the memory."""
        dim = 1 if self.plan.objects_per_pass is None else 0

        def cut(t: Tensor) -> Tensor:
            return torch.cat([t.narrow(dim, 0, row), t.narrow(dim, row + 1, t.shape[dim] - row - 1)], dim)

        key = cut(e.key) if self.plan.keys_per_object else e.key
        return replace(e, key=key, value=cut(e.value), extra=None if e.extra is None else cut(e.extra))

    def latest(self, layer: int) -> MemoryElements:
        """What the previous frame left. Raises EmptyMemoryError before the first mask."""
        if not self.plan.short_term:
            raise MemoryStateError("no latest frame is kept", remedy="declare short_term in the model's plan")
        latest = self._latest[layer]
        if latest is None:
            raise EmptyMemoryError("memory was read before the first mask", remedy="step a frame with a mask first")
        return latest

    def shift_latest(self, down: int, right: int) -> None:
        """Move what the previous frame left, as `shifted` has it."""
        for layer, e in enumerate(self._latest):
            if e is not None:
                maps = {f.name: getattr(e, f.name) for f in fields(e) if getattr(e, f.name) is not None}
                self._latest[layer] = replace(e, **{name: shifted(t, down, right) for name, t in maps.items()})

    def memorise(self, elements: tuple[MemoryElements, ...], *, store: Store | None, step: int) -> None:
        """Keep what one frame leaves; a frame that was kept as the latest only gives way to it.

        elements   one for each of the first layers, batch 1, values (and keys, where these are per object) of all
                   objects in row order; of a model with identities the batch is its rows
        store      PERMANENT where the artist drew the frame, WORKING for a memory frame, LATEST where it gives way to
                   the next one; None: for `latest` alone
        """
        for layer, (pool, e) in enumerate(zip(self.layers, elements, strict=False)):
            if self.plan.short_term:
                self._latest[layer] = e
            if store is None:
                continue
            latest = pool.of(Store.LATEST)
            if bool(latest.any()):
                pool.keep(~latest)
            if self._slots is not None:
                self._slots.make_room(pool, e, step, drawn=store == Store.PERMANENT)
            elif self.settings.long_term and self.plan.consolidates:
                # All at once: growing later would hold the old memory beside the new.
                frames = 1 + self.settings.max_working_frames + self.settings.include_last
                pool.reserve(frames * e.key.shape[-2] * e.key.shape[-1] + self.settings.max_long_term)
            identities = self.plan.objects_per_pass is not None
            values = (e.value[:, 0] if identities else e.value[0]).flatten(2).transpose(1, 2)  # [O, n, CV]
            counts = [b.objects for b in pool.buckets]
            rows = torch.split(values, counts)
            own = None
            if self.plan.keys_per_object:
                own = (e.key if identities else e.key[0]).flatten(2).transpose(1, 2)  # [O, n, CK]
            pool.append(
                values.new_zeros(values.shape[1], 0) if own is not None else _columns(e.key),
                None if e.shrinkage is None else _columns(e.shrinkage)[:, 0],
                None if e.selection is None else _columns(e.selection),
                list(rows),
                [None] * len(rows),
                store,
                step,
                None if own is None else list(torch.split(own, counts)),
            )

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        """Readout [1, O, CV, y, x] for every object; usage is counted on the way (section 3.3).

        Of a model with identities the readout is [B, 1, CV, y, x], its batch being the passes; the query has batch B,
        or 1 where all passes ask the same.
        Usage is what the oldest objects attend to: they alone have seen every element.
        Raises EmptyMemoryError before the first mask.
        """
        pool = self.layers[layer]
        if pool.size == 0:
            raise EmptyMemoryError("memory was read before the first mask", remedy="step a frame with a mask first")
        y, x = query.key.shape[-2:]
        if self.plan.keys_per_object:
            readout = self._read_own(pool, query.key.flatten(2)).unflatten(2, (y, x))
            return readout[None] if self.plan.objects_per_pass is None else readout[:, None]
        key, shrinkage = pool["key"].T[None], pool["shrinkage"][None]
        anisotropic = self.plan.similarity == "anisotropic_l2"
        selection = query.selection.flatten(2) if query.selection is not None else None
        count = self.settings.long_term and self.plan.consolidates
        seen = [bucket.valid[: pool.size] for bucket in pool.buckets]
        results = read_groups(
            key,
            query.key.flatten(2),
            [bucket.value[:, : pool.size].transpose(1, 2)[None] for bucket in pool.buckets],
            [None if bool(valid.all()) else valid[None] for valid in seen],
            shrinkage=shrinkage if anisotropic else None,
            selection=selection,
            top_k=self.settings.top_k,
            similarity=self.plan.similarity,
            need_usage=count,
            packed=pool.packed,
        )
        usage = results[0].usage
        if usage is not None:
            pool["use"].add_(usage[0])
            pool["life"].add_(1)
        parts = [result.readout for result in results]
        readout = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return readout.view(1, -1, self.plan.value_dim, y, x)

    def distance_to_drawn(self, query: Query, positions: Tensor) -> Tensor:
        """How far some positions lie from the nearest element that the artist drew, where keys are shared.

        query       key [1, CK, y, x]
        positions   [P] indices into y*x
        returns     [P] float32: distance to the nearest drawn element over the mean distance to all of them, 0..1
        """
        pool = self.layers[0]
        asked = query.key.flatten(2)[..., positions].float()
        anisotropic = self.plan.similarity == "anisotropic_l2"
        selection = query.selection.flatten(2)[..., positions].float() if query.selection is not None else None
        scores = similarity(
            pool["key"][pool.drawn].T[None],
            asked,
            shrinkage=pool["shrinkage"][pool.drawn][None] if anisotropic else None,
            selection=selection if anisotropic else None,
            similarity=self.plan.similarity,
        )[0]
        distances = -scores
        if not anisotropic:  # the score leaves out what is the same for all elements
            distances = distances + asked[0].square().sum(0) / math.sqrt(asked.shape[1])
        return distances.amin(0) / distances.mean(0).clamp(min=1e-6)

    def _read_own(self, pool: Pool, query: Tensor) -> Tensor:
        """Readout [O, CV, P] where every object has keys of its own: one affinity an object (STM, eq. 1) and head.

        query   [1, CK, P], or [O, CK, P] where objects ask differently
        """
        parts = []
        row = 0
        for bucket in pool.buckets:
            rows = slice(row, row + bucket.objects)
            row += bucket.objects
            asked = query[rows] if query.shape[0] > 1 else query.expand(bucket.objects, -1, -1)
            key, value, valid = (t[..., : pool.size, :] for t in (bucket.key, bucket.value, bucket.valid[:, None]))
            if not bool(valid.all()):
                key, value = key[:, valid[:, 0]], value[:, valid[:, 0]]
            key, value, asked = (self._by_head(t) for t in (key, value, asked.transpose(1, 2)))
            if self.settings.top_k is None and self.plan.similarity == "dot":
                read = attend(asked, key, value).transpose(1, 2).flatten(2).transpose(1, 2)
            else:
                result = read_memory(
                    key.flatten(0, 1).transpose(1, 2),
                    asked.flatten(0, 1).transpose(1, 2),
                    value.flatten(0, 1).transpose(1, 2)[:, None],
                    top_k=self.settings.top_k,
                    similarity=self.plan.similarity,
                )
                read = result.readout.unflatten(0, (bucket.objects, -1))[:, :, 0].flatten(1, 2)
            parts.append(read)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _by_head(self, rows: Tensor) -> Tensor:
        """[O, n, C] as [O, heads, n, C/heads]."""
        return rows.unflatten(2, (self.plan.heads, -1)).transpose(1, 2)


def shifted(maps: Tensor, down: int, right: int) -> Tensor:
    """Maps [..., y, x] of a window that moved: what stood at (down, right) stands at (0, 0); unknown places are 0."""
    height, width = maps.shape[-2:]
    moved = torch.zeros_like(maps)
    y, x = max(height - abs(down), 0), max(width - abs(right), 0)
    old, new = (max(down, 0), max(right, 0)), (max(-down, 0), max(-right, 0))
    moved[..., new[0] : new[0] + y, new[1] : new[1] + x] = maps[..., old[0] : old[0] + y, old[1] : old[1] + x]
    return moved


def _columns(x: Tensor) -> Tensor:
    """[1, C, y, x] as [y*x, C]."""
    return x[0].flatten(1).T
