"""A shot coarse to fine: a small picture of every Nth frame first, then what lies between.

Frames are tracked away from the nearest key, so the first answer comes as soon as the first frame was read. What is
told of two neighbouring coarse frames is then memory, as if it had been drawn, for the frames between them. A preview
shows where a key is wanted; it is not the run, which steps from frame to frame and blends both directions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.blend import Mattes, within_one
from rotomem.engine.footage import PlateFootage, Seen
from rotomem.engine.options import TrackOptions
from rotomem.engine.passes import Shot, plan_pass, run_pass
from rotomem.engine.pipeline import Clock
from rotomem.engine.roi import Region
from rotomem.engine.segments import Segment, plan_segments
from rotomem.engine.session import Session
from rotomem.engine.sight import Sight
from rotomem.engine.survey import absences
from rotomem.errors import UsageError
from rotomem.io.masks import Masks, load_masks
from rotomem.io.plate import Plate
from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.types import KeyMask, ObjectId

PREVIEW_SIZE = 240
PREVIEW_EVERY = 8
_Packed = dict[ObjectId, NDArray[np.float16]]
_KEPT = 128  # small pictures, so that coarse frames are not read again


@dataclass(frozen=True)
class PreviewFrame:
    """One frame of a preview.

    picture   [h, w, 3] float32 display-referred, as the network saw it; None where the plate has no such frame
    mattes    object -> [h, w] float32 0..1; without those that are absent
    level     "key": as drawn; "coarse"; "fine"
    """

    frame: int
    picture: NDArray[np.float32] | None
    mattes: Mapping[ObjectId, NDArray[np.float32]]
    level: str


class Preview:
    """A shot about to be previewed. A context manager; `frames` does the work.

    plate, masks   as `track` takes them
    options        of the run; those about mattes are not looked at
    every          a coarse frame every so many; 1: all at once, in order

    names          object -> the artist's name
    Raises any RotomemError.
    """

    def __init__(self, plate: str | Path, masks: Masks, options: TrackOptions, *, every: int = PREVIEW_EVERY) -> None:
        if every < 1:
            raise UsageError(f"a coarse frame every {every} frames", remedy="give 1 or more")
        # Without a rim keys, answers and pictures have one raster.
        self.options, self.every = replace(options, rim=0), every
        self.plate = options.open_plate(plate)
        try:
            self.sight = Sight(self.plate, self.options)
            keys = load_masks(masks, self.plate)
            self.names = dict(keys.objects.names)
            self._absent = absences(options.absent, self.names)
            self.model = (
                options.model
                if isinstance(options.model, VOSModel)
                else load_model(options.model, device=options.device, dtype=options.dtype)
            )
        except BaseException:
            self.close()
            raise
        geometry = self.sight.geometry
        self._keys = {
            frame: KeyMask(frame, key.objects, geometry.masks(torch.from_numpy(key.alpha)).numpy())
            for frame, key in keys.by_frame.items()
        }
        self._footage = _SmallFootage(self.plate, self.sight, self._session, self._keys)

    def __enter__(self) -> Preview:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the plate."""
        if hasattr(self, "sight"):
            self.sight.close()
        self.plate.close()

    def _session(self) -> Session:
        return Session(self.model, size=None, **self.options.session())

    def frames(self) -> Iterator[PreviewFrame]:
        """Every frame of the plate once: keys that speak for all objects, then every Nth frame, then the others."""
        shot = Shot.of(sorted({i for key in self._keys.values() for i in key.objects}), self._keys, self._absent)
        known: dict[int, _Packed] = {}
        for frame, key in self._keys.items():
            if set(shot.objects) <= set(key.objects):
                mattes = dict(zip(key.objects, key.alpha, strict=True))
                known[frame] = _packed(mattes)
                yield self._told(frame, mattes, "key")
        coarse = self._coarse()
        speaks_for = {f: key.objects for f, key in shot.keys.items()}
        for segment in plan_segments(coarse, speaks_for, shot.objects, neighbours=0):
            for frame, mattes in self._follow(shot, segment, nearest=True):
                known[frame] = _packed(mattes)
                yield self._told(frame, mattes, "coarse")
        places = {frame: i for i, frame in enumerate(self.plate.frames)}
        for a, b in pairwise(coarse):
            between = self.plate.frames[places[a] + 1 : places[b]]
            if not between:
                continue
            drawn = {f: _as_key(f, known[f]) for f in (a, b) if known[f]}
            ends = Segment(between, a if a in drawn else None, b if b in drawn else None)
            for frame, mattes in self._follow(Shot.of(shot.objects, drawn, self._absent), ends, nearest=False):
                yield self._told(frame, mattes, "fine")
            del known[a]

    def _coarse(self) -> list[int]:
        """Every Nth frame as counted from the first key, the first and the last, and all keys."""
        frames = self.plate.frames
        first = frames.index(min(self._keys))
        return sorted({*frames[first % self.every :: self.every], frames[0], frames[-1], *self._keys})

    def _follow(self, shot: Shot, segment: Segment, *, nearest: bool) -> Iterator[tuple[int, Mattes]]:
        """A segment's frames, as soon as they are told.

        nearest   every object follows from the nearer of its keys; else from the one before, where there is one
        """
        ahead: dict[int, set[ObjectId]] = {}
        behind: dict[int, set[ObjectId]] = {}
        for frame in segment.frames:
            for number, share in shot.shares(frame, "both").items():
                forward = share >= 0.5 if nearest else share > 0
                (ahead if forward else behind).setdefault(frame, set()).add(number)
        told: dict[int, Mattes] = {
            frame: dict(zip(key.objects, key.alpha, strict=True))
            for frame in segment.frames
            if (key := shot.keys.get(frame)) is not None
        }
        for frame in segment.frames:
            if frame not in ahead and frame not in behind:
                yield frame, told.get(frame, {})
        for wanted, others, forward in ((ahead, behind, True), (behind, ahead, False)):
            plan = plan_pass(shot, segment, wanted, forward=forward)
            if plan is None:
                continue
            with closing(run_pass(plan, shot, self._footage)) as steps:
                for step in steps:
                    frame = step.frame
                    if frame not in wanted:
                        continue
                    told.setdefault(frame, {}).update({i: m for i, m in step.mattes.items() if i in wanted[frame]})
                    if forward and frame in others:
                        continue
                    yield frame, within_one(told.pop(frame))

    def _told(self, frame: int, mattes: Mattes, level: str) -> PreviewFrame:
        picture = self._footage.recall(frame).picture
        return PreviewFrame(frame, None if picture is None else picture.numpy(), mattes, level)


def _packed(mattes: Mattes) -> _Packed:
    """In half the room: the coarse frames of a long shot wait for their neighbours."""
    return {number: matte.astype(np.float16) for number, matte in mattes.items()}


def _as_key(frame: int, packed: _Packed) -> KeyMask:
    return KeyMask(frame, tuple(packed), np.stack(list(packed.values())).astype(np.float32))


class _SmallFootage(PlateFootage):
    """Footage whose keys have the network's raster, and which keeps its pictures."""

    def __init__(self, plate: Plate, sight: Sight, session: Callable[[], Session], drawn: Collection[int]) -> None:
        super().__init__(
            plate,
            sight,
            drawn=drawn,
            session=session,
            pixels=False,
            reach=0,
            clock=Clock(),
            on_step=lambda frame: None,
        )
        self._small: OrderedDict[int, Seen] = OrderedDict()

    def masks(self, key: KeyMask) -> Tensor:
        """See Footage."""
        return torch.from_numpy(key.alpha)

    def see(self, frame: int, region: Region | None = None) -> Seen:
        """See PlateFootage."""
        if region is not None:
            return super().see(frame, region)
        with self._lock:
            if (seen := self._small.get(frame)) is not None:
                self._small.move_to_end(frame)
                return seen
        seen = super().see(frame)
        with self._lock:
            self._small[frame] = seen
            while len(self._small) > _KEPT:
                self._small.popitem(last=False)
        return seen
