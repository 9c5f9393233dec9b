"""One shot, frame by frame: encode, read, decode, memorise (XMem, sections 3.1 to 3.4)."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.consolidation import consolidate_if_full
from rotomem.engine.geometry import fit, from_network, to_network
from rotomem.engine.memory import MemoryBank, Store, shifted
from rotomem.engine.objects import ObjectRows
from rotomem.engine.options import DEFAULT_SIZE, MODEL, MemorySettings, TrackOptions, own_or
from rotomem.errors import EmptyMemoryError, MemoryStateError, ShapeError, UsageError
from rotomem.models.interface import Decoded, MemoryElements, Query, VOSModel
from rotomem.models.layers.aggregate import join_passes
from rotomem.types import ObjectId

_POSITIONS = 64
"""An object's positions, at most, that `match_distance` looks at."""


class Session:
    """A shot being tracked: give it frames in order, some with masks, and it says where the objects are.

    Masks may come on any step; objects may appear on any of them. Frames with a mask stay in memory for good, with
    what holds on them for every object, and so do frames that `remember` is given beforehand; the memory is bounded
    whatever the length of the shot, unless the model's authors had it grow (STM, STCN) and `long_term` is left to
    them. The same steps give the same bytes on one machine with one number of threads (memory reads: with any one).

    model                from `load_model` or `build_model`
    mem_every            frames between two memory frames; None: only those with a mask; "model": as it declares
    top_k                elements a position attends to; None is a full softmax; "model": what the model declares
    min_working_frames, max_working_frames   working memory shrinks to the first number on reaching the second
    prototypes           long-term elements made each time
    max_long_term        long-term elements kept; the least used go first
    long_term            True bounds the memory: frames become prototypes where the model consolidates, else those
                         beyond max_working_frames go, oldest first. False keeps every memory frame, so memory grows
                         with the shot. "model": as published, True where the model consolidates
    include_last         the previous frame is in memory even where it is no memory frame; "model": as it declares
    memory_gib           GiB that a memory which grows may fill: then every second frame goes, and new ones are
                         kept half as often; None: no limit
    deep_update_every    frames between deep updates of the sensory memory; negative: on every memory frame
    refine               whether the model's refinement head, where it has one, has the last word on edges
    depth                layers that run, of a model that has a choice (AOST); None: all
    size                 shorter side of the picture the network sees; None or a size above the picture's own
                         leaves it as it is

    Raises UsageError where sizes contradict each other.
    """

    def __init__(
        self,
        model: VOSModel,
        *,
        mem_every: int | str | None = MODEL,
        top_k: int | str | None = MODEL,
        min_working_frames: int = MemorySettings.min_working_frames,
        max_working_frames: int = MemorySettings.max_working_frames,
        prototypes: int = MemorySettings.prototypes,
        max_long_term: int = MemorySettings.max_long_term,
        long_term: bool | str = MODEL,
        include_last: bool | str = MODEL,
        memory_gib: float | None = MemorySettings.memory_gib,
        deep_update_every: int = TrackOptions.deep_update_every,
        refine: bool = True,
        depth: int | None = None,
        size: int | None = DEFAULT_SIZE,
    ) -> None:
        if size is not None and not (isinstance(size, int) and size >= model.plan.stride):
            raise UsageError(f"size is {size!r}", remedy=f"give a whole number from {model.plan.stride}, or None")
        self.model = model.eval()
        self.settings = MemorySettings(
            mem_every=own_or("mem_every", mem_every, model.plan.memory_every),
            top_k=own_or("top_k", top_k, model.plan.top_k),
            min_working_frames=min_working_frames,
            max_working_frames=max_working_frames,
            prototypes=prototypes,
            max_long_term=max_long_term,
            long_term=own_or("long_term", long_term, model.plan.consolidates),
            include_last=own_or("include_last", include_last, model.plan.latest_frame),
            memory_gib=memory_gib,
        )
        self.size = size
        self.deep_update_every = deep_update_every
        self.refine = refine
        self._depth = model.depths[-1] if model.depths else None
        if depth is not None:
            self.depth = depth
        self.timings: dict[str, float] = {}
        """Seconds spent so far in encode_frame, memory_read, decode, encode_mask and memorise."""
        self._device = next(model.parameters()).device
        self.memory = MemoryBank(model.plan, self.settings, self._device, model.choose_slot)
        self._rows = ObjectRows(model.plan.objects_per_pass or 1)
        self._sensory: Tensor | None = None
        self._asked: tuple[Query, Tensor] | None = None
        self._shape: tuple[int, int] | None = None
        self._step = -1
        self._last_memory = 0
        self._last_deep = 0
        self._ended = False
        self._remembered = 0

    @property
    def objects(self) -> tuple[ObjectId, ...]:
        """Ids of the objects known by now, in order of first appearance: the rows of what `step` returns."""
        return self._rows.ids

    @property
    def depth(self) -> int | None:
        """Layers that run; may be set between any two steps. None where the model has no layers to choose from.

        Layers that do not run remember nothing meanwhile, but frames with a mask. Raises UsageError for a depth the
        model cannot run at.
        """
        return self._depth

    @depth.setter
    def depth(self, depth: int) -> None:
        if depth not in self.model.depths:
            able = ", ".join(map(str, self.model.depths)) or "none but its own"
            raise UsageError(f"depth is {depth!r}", remedy=f"this model runs at depth {able}")
        self._depth = depth

    @torch.inference_mode()
    def step(
        self,
        image: NDArray[np.float32] | Tensor,
        mask: NDArray[Any] | Tensor | None = None,
        *,
        objects: Sequence[ObjectId] | None = None,
        absent: Collection[ObjectId] = (),
        last: bool = False,
    ) -> NDArray[np.float32]:
        """Take the next frame and tell where every object is on it.

        image     [H, W, 3] float32, display-referred 0..1; the same size on every step
        mask      [H, W] uint8 label map (0 background), or [O, H, W] float coverage 0..1, a row per id of `objects`
        objects   ids this mask speaks for; default: those in the label map. An id spoken for without a pixel is
                  absent on this frame; a known object that is not spoken for is segmented as usual.
        absent    ids known to be nowhere on this frame: what the network takes for them is background, and so it is
                  memorised; ids that are not known yet change nothing
        last      this is the shot's last frame: nothing is memorised, and no step may follow
        returns   [O+1, H, W] float32 probabilities that sum to 1, background first, then `self.objects`

        A step that raises leaves the session as it was. Raises EmptyMemoryError before the first mask; ShapeError
        naming the argument and the sizes; UsageError for ids that are none; MemoryStateError after the last frame,
        and where a mask brings back an object that was removed.
        """
        if self._ended:
            raise MemoryStateError("this session has taken its last frame", remedy="start a new session")
        picture, height, width = self._picture(image)
        given, ids = self._given(mask, objects, height, width)
        if drawn := sorted(set(absent).intersection(ids)):
            raise UsageError(
                f"object {drawn[0]} is absent and has a mask on one frame",
                remedy="say one or the other",
                step=self._step + 1,
            )
        if not len(self._rows) and given is None:
            if self._rows.removed:
                self._step += 1
                return np.ones((1, height, width), np.float32)
            raise EmptyMemoryError(
                "the session has seen no mask yet" if mask is None else "the first mask shows no object",
                remedy="give a mask with the first step of a shot",
            )
        self._shape = (height, width)
        self._asked = None
        self._step += 1
        self._ended = last
        known, held = len(self._rows), self._rows.passes
        self._rows.add(ids)

        every = self.settings.mem_every
        is_due = every is not None and self._step - self._last_memory >= every * self.memory.spacing
        is_memory = (given is not None or is_due) and not last
        every_memory = self.deep_update_every < 0
        deep_due = is_memory if every_memory else self._step - self._last_deep >= self.deep_update_every
        is_deep = deep_due and not last
        # With deep updates on every memory frame these replace the decoder's update there, as published.
        update_sensory = not last and not (every_memory and is_deep)

        if self._depth is not None:
            self.model.depth = self._depth
        with self._precision():
            with self._timed("encode_frame"):
                features = self.model.encode_frame(picture)
            seen = None
            if known and not set(self._rows.ids) <= set(ids):
                seen = self._segment(features, update_sensory)
            plan = self.model.plan
            remembers = is_memory or ((self.settings.include_last or plan.short_term) and not last)
            refined = seen.refined if seen is not None and self.refine else None
            # Of a refined frame that nothing remembers, what was refined is not asked for.
            if remembers or refined is None or given is not None:
                segmented = None if seen is None else self._probabilities(seen, held, known, height, width)
                probabilities = self._without(absent, self._merge(segmented, given, ids, known))
            if opened := self._rows.passes - held:
                self._open(opened, probabilities)
            if remembers:
                is_deep = is_deep and is_memory
                masks = self._fed_back(probabilities, height, width)
                with self._timed("encode_mask"):
                    memorised = self.model.encode_mask(
                        picture,
                        features,
                        masks,
                        self._sensory,
                        seen=seen,
                        drawn=given is not None,
                        deep_update=is_deep,
                    )
                store = Store.LATEST if self.settings.include_last else None
                if is_memory:
                    store = Store.WORKING if given is None else Store.PERMANENT
                with self._timed("memorise"):
                    self.memory.memorise(memorised.elements, store=store, step=self._step)
                    consolidate_if_full(self.memory)
                if is_memory:
                    self._last_memory = self._step
                if is_deep and memorised.sensory is not None:
                    self._sensory = memorised.sensory
                    self._last_deep = self._step

        if refined is not None:
            probabilities = self._without(absent, self._merge(refined.softmax(1), given, ids, known))
        if not self._labels:
            if self._asked is not None:
                self._asked = (self._asked[0], probabilities)
            probabilities = self.model.framing.restore(probabilities, *self._network_size(height, width))
        return from_network(probabilities[0], height, width).cpu().numpy()

    @torch.inference_mode()
    def match_distance(self) -> dict[ObjectId, float]:
        """How far each object's pixels on the frame just stepped lie from what the artist drew, as features.

        A few of the object's positions look for their nearest element among those of frames with a mask: 0 where
        they find themselves, 1 where the nearest is as far as any. NaN for an object that is not seen on the frame,
        and throughout where nothing was segmented on it, or the model's keys depend on masks (STM, AOT, STReMN).
        Cost: 64 positions an object against the drawn elements, about a hundredth of a step.
        """
        distances = dict.fromkeys(self._rows.ids, math.nan)
        if self._asked is None:
            return distances
        query, probabilities = self._asked
        seen = F.avg_pool2d(probabilities[0, 1:], self.model.plan.stride).flatten(1) > 0.5
        for row, object_id in enumerate(self._rows.ids):
            positions = seen[row].nonzero()[:, 0]
            positions = positions[:: -(-len(positions) // _POSITIONS) or 1]
            if len(positions):
                distances[object_id] = float(self.memory.distance_to_drawn(query, positions).mean())
        return distances

    @torch.inference_mode()
    def remember(
        self,
        image: NDArray[np.float32] | Tensor,
        mask: NDArray[Any] | Tensor,
        *,
        objects: Sequence[ObjectId] | None = None,
    ) -> None:
        """Take a frame that the artist drew elsewhere in the shot into permanent memory, before the first step.

        `image`, `mask` and `objects` are as `step` has them, but the mask has to speak for every object known so far.

        Raises what `step` raises, and MemoryStateError after the first step, and where the mask is silent about a
        known object.
        """
        if self._step >= 0:
            raise MemoryStateError("this session has begun", remedy="remember frames before the first step")
        picture, height, width = self._picture(image)
        given, ids = self._given(mask, objects, height, width)
        if given is None:
            raise EmptyMemoryError("the mask shows no object", remedy="name the objects that it speaks for")
        if silent := sorted(set(self._rows.ids) - set(ids)):
            raise MemoryStateError(
                f"a frame to remember says nothing of object {silent[0]}",
                remedy="give it to the step of its frame, which segments the others",
            )
        self._shape = (height, width)
        known, held = len(self._rows), self._rows.passes
        self._rows.add(ids)
        self._remembered += 1
        if self._depth is not None:
            self.model.depth = self._depth
        with self._precision():
            features = self.model.encode_frame(picture)
            probabilities = self._merge(None, given, ids, known)
            if opened := self._rows.passes - held:
                self._open(opened, probabilities)
            masks = self._fed_back(probabilities, height, width)
            memorised = self.model.encode_mask(picture, features, masks, self._sensory, drawn=True)
            # Below every step, and below the mark of prototypes: frames are told apart by these numbers.
            self.memory.memorise(memorised.elements, store=Store.PERMANENT, step=-1 - self._remembered)

    @torch.inference_mode()
    def remove(self, object_id: ObjectId) -> None:
        """Forget an object: its row, its values, its sensory memory. Other objects are not touched.

        Values that hold several objects (AOT) stay as long as one of them does; what they show of the object that
        went belongs to nobody.

        Raises MemoryStateError for an unknown id.
        """
        row = self._rows.remove(object_id)
        if row is None:
            return
        self.memory.remove_object(row)
        if self._sensory is not None:
            self._sensory = torch.cat([self._sensory[:, :row], self._sensory[:, row + 1 :]], 1)

    @torch.inference_mode()
    def shift(self, down: int, right: int) -> None:
        """The pictures to come show another part of the plate: move what is remembered by place.

        down, right   where the new picture begins, as seen from the old one, in elements of the feature map
                      (`model.plan.stride` pixels of the network picture); negative: up, left

        Sensory memory and what the previous frame left move with the plate; what comes into sight is unknown, zeros.
        Memory that is read by likeness has no place and stays. Raises UsageError where the model's has one.
        """
        if not down and not right:
            return
        if self.model.plan.placed_keys:
            raise UsageError(
                "this model's memory knows places and cannot follow a window that moves",
                remedy="keep the window where it is",
            )
        if self._sensory is not None:
            self._sensory = shifted(self._sensory, down, right)
        self.memory.shift_latest(down, right)

    def _segment(self, features: Any, update_sensory: bool) -> Decoded:
        """What the network says of the objects that memory knows."""
        reader = _TimedReader(self.memory, self.timings)
        with self._timed("decode"):
            decoded = self.model.decode(features, reader, self._sensory, update_sensory=update_sensory)
        self.timings["decode"] -= reader.seconds
        if reader.query is not None and not self.model.plan.keys_per_object:
            self._asked = (reader.query, decoded.probabilities)
        if update_sensory and decoded.sensory is not None:
            self._sensory = decoded.sensory
        return decoded

    @property
    def _labels(self) -> bool:
        """Whether masks are merged and fed back as labels, at the picture's raster; else framed, at the network's."""
        return self.model.plan.feedback == "labels"

    def _probabilities(self, seen: Decoded, held: int, known: int, height: int, width: int) -> Tensor:
        """What the network says of the `known` objects [1, O+1, h, w], background first.

        held   passes that memory knows; objects that come on this very frame are not in what it says
        """
        if not self._labels:
            return seen.probabilities
        framing, size = self.model.framing, self._network_size(height, width)
        if self.model.plan.objects_per_pass is None:
            return framing.restore(seen.logits, *size).softmax(1)
        passes, order = [], [0]
        for number in range(held):
            members = [(row, identity) for row, identity in self._rows.members(number) if row < known]
            used = seen.logits[number : number + 1, [0, *(1 + identity for _, identity in members)]]
            passes.append(framing.restore(used, *size))
            order.extend(1 + row for row, _ in members)
        return join_passes(passes)[:, np.argsort(order).tolist()]

    def _merge(self, segmented: Tensor | None, given: Tensor | None, ids: Sequence[ObjectId], known: int) -> Tensor:
        """What holds on this frame [1, O+1, h, w]: the mask for the objects it speaks for, the network for others."""
        if given is None:
            assert segmented is not None
            return segmented
        masks = given.new_zeros(1, len(self._rows), *given.shape[-2:])
        if segmented is not None:
            # What the artist drew hides what the network saw there, for all objects.
            masks[:, :known] = segmented[:, 1:] * (1 - given.sum(1, keepdim=True).clamp(0, 1))
        for i, object_id in enumerate(ids):
            masks[:, self._rows.row(object_id)] = given[:, i]
        return self.model.aggregate(masks)

    def _without(self, absent: Collection[ObjectId], probabilities: Tensor) -> Tensor:
        """Probabilities [1, O+1, h, w] in which absent objects are background."""
        rows = [1 + self._rows.row(i) for i in sorted(set(absent).intersection(self._rows.ids))]
        if not rows:
            return probabilities
        probabilities = probabilities.clone()
        probabilities[:, 0] += probabilities[:, rows].sum(1)
        probabilities[:, rows] = 0
        return probabilities

    def _open(self, passes: int, like: Tensor) -> None:
        """Rows of the memory for objects that come now."""
        self.memory.add_objects(passes)
        self._grow_sensory(passes, like)

    def _fed_back(self, probabilities: Tensor, height: int, width: int) -> Tensor:
        """Masks as they are memorised: [1, O, h, w], or [passes, identities, h, w] of a model that has these."""
        framing, plan = self.model.framing, self.model.plan
        masks = probabilities[:, 1:]
        if self._labels:
            best = probabilities.max(1, keepdim=True).indices  # argmax takes four times as long
            rows = torch.arange(1, probabilities.shape[1], device=best.device)
            masks = framing.mask((best == rows[:, None, None]).float())
        elif plan.clear_padding:
            masks = framing.mask(framing.restore(masks, *self._network_size(height, width)))
        if plan.objects_per_pass is None:
            return masks
        apart = masks.new_zeros(self._rows.passes, plan.objects_per_pass, *masks.shape[-2:])
        for number in range(self._rows.passes):
            for row, identity in self._rows.members(number):
                apart[number, identity] = masks[0, row]
        return apart

    def _grow_sensory(self, new: int, like: Tensor) -> None:
        stride = self.model.plan.stride
        y, x = -(-like.shape[-2] // stride), -(-like.shape[-1] // stride)
        zeros = self.model.empty_sensory(1, new, y, x, like)
        if zeros is not None:
            self._sensory = zeros if self._sensory is None else torch.cat([self._sensory, zeros], 1)

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        return (height, width) if self.size is None else fit(height, width, self.size)

    def _picture(self, image: NDArray[np.float32] | Tensor) -> tuple[Tensor, int, int]:
        """The framed network picture [1, 3, h, w], and the size of the one that came."""
        tensor = _tensor(image, "image")
        if tensor.ndim != 3 or tensor.shape[2] != 3 or 0 in tensor.shape:
            raise ShapeError(f"image is {tuple(tensor.shape)}, expected [H, W, 3]", step=self._step + 1)
        if not tensor.is_floating_point():
            raise ShapeError(
                f"image is {tensor.dtype}, expected float32 in 0..1",
                remedy="divide 8-bit pictures by 255",
                step=self._step + 1,
            )
        height, width = tensor.shape[:2]
        if self._shape is not None and self._shape != (height, width):
            raise ShapeError(
                f"image is {width}x{height}, the session's first was {self._shape[1]}x{self._shape[0]}",
                remedy="start a new session where the picture changes size",
                step=self._step + 1,
            )
        network = to_network(tensor.to(self._device, torch.float32), *self._network_size(height, width))
        # One pass: the sum of what is not finite is not. A picture is looked at before it goes to a GPU, not to wait.
        looked_at = tensor if tensor.device.type == "cpu" != self._device.type else network
        if not bool(torch.isfinite(looked_at.sum(dtype=torch.float64))):
            raise ShapeError("image holds a NaN or an infinity", remedy="tame the picture first", step=self._step + 1)
        framed = self.model.framing.image(network.permute(2, 0, 1)[None])
        return framed.contiguous(memory_format=torch.channels_last), height, width

    def _given(
        self,
        mask: NDArray[Any] | Tensor | None,
        objects: Sequence[ObjectId] | None,
        height: int,
        width: int,
    ) -> tuple[Tensor | None, tuple[ObjectId, ...]]:
        """The mask as coverage [1, O, h, w], and the ids of its rows; checked before anything changes.

        Framed, but where masks are merged at the picture's raster.
        """
        if mask is None:
            if objects is not None:
                raise UsageError("objects without a mask", remedy="give the mask that speaks for them")
            return None, ()
        tensor = _tensor(mask, "mask")
        objects = (objects,) if isinstance(objects, int) else objects
        if tensor.shape[-2:] != (height, width) or tensor.ndim not in (2, 3):
            raise ShapeError(
                f"mask is {tuple(tensor.shape)}, expected [{height}, {width}] or [O, {height}, {width}]",
                step=self._step + 1,
            )
        if tensor.ndim == 2:
            if tensor.is_floating_point():
                raise ShapeError(
                    f"mask is {tensor.dtype}, expected a uint8 label map",
                    remedy="give coverage as [O, H, W] with objects=",
                    step=self._step + 1,
                )
            found = tuple(int(i) for i in torch.unique(tensor) if i != 0)
            ids = found if objects is None else tuple(objects)
            if stray := set(found) - set(ids):
                raise UsageError(
                    f"the mask holds labels {sorted(stray)} that objects= does not name", step=self._step + 1
                )
            coverage = torch.stack([(tensor == i).float() for i in ids]) if ids else None
        else:
            if objects is None or len(objects) != tensor.shape[0]:
                raise ShapeError(
                    f"mask has {tensor.shape[0]} rows, objects names {0 if objects is None else len(objects)}",
                    remedy="pass one object id per row",
                    step=self._step + 1,
                )
            ids, coverage = tuple(objects), tensor.float() if len(objects) else None
        if len(set(ids)) != len(ids) or any(i < 1 for i in ids):
            raise UsageError(f"objects {list(ids)} must be different ids of 1 or more", step=self._step + 1)
        if coverage is None:
            return None, ()
        if not bool(torch.isfinite(coverage).all()) or coverage.min() < 0 or coverage.max() > 1:
            raise ShapeError("mask coverage must lie in 0..1", step=self._step + 1)
        if gone := self._rows.removed.intersection(ids):
            raise MemoryStateError(
                f"object {min(gone)} was removed from this session",
                remedy="give the returning object a new id, or start a new session",
            )
        network = to_network(coverage.to(self._device).permute(1, 2, 0), *self._network_size(height, width))
        masks = network.permute(2, 0, 1)[None]
        return masks if self._labels else self.model.framing.mask(masks), ids

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start

    def _precision(self) -> Any:
        dtype = self.model.compute_dtype
        return nullcontext() if dtype == torch.float32 else torch.autocast(self._device.type, dtype)


def _tensor(array: NDArray[Any] | Tensor, name: str) -> Tensor:
    """A picture or mask as a tensor, whatever its strides, byte order and width of integers."""
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise ShapeError(f"{name} is of type {array.dtype}, expected numbers")
    kind = array.dtype.newbyteorder("=") if array.dtype.kind == "f" or array.dtype == np.uint8 else np.dtype(np.int64)
    array = np.ascontiguousarray(array, kind)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class _TimedReader:
    """The bank as the model sees it, with the seconds spent reading."""

    def __init__(self, bank: MemoryBank, timings: dict[str, float]) -> None:
        self._bank = bank
        self._timings = timings
        self.seconds = 0.0
        self.query: Query | None = None

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        self.query = query
        start = time.perf_counter()
        with torch.autocast(query.key.device.type, enabled=False):
            readout = self._bank.read(query, layer=layer)
        spent = time.perf_counter() - start
        self.seconds += spent
        self._timings["memory_read"] = self._timings.get("memory_read", 0.0) + spent
        return readout

    def latest(self, *, layer: int = 0) -> MemoryElements:
        return self._bank.latest(layer)
