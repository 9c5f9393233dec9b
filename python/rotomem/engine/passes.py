"""Passes over a segment: away from the key before it, away from the key after it, and what both make together.

A pass is a session of its own, which is given the segment's key frames before it begins; then it steps from frame to
frame. Where both directions tell of a frame their answers are blended (`blend.py`). Only a few frames are held: what
the first pass says waits on disk while the second one runs.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.blend import Mattes, blend, share_forward
from rotomem.engine.confidence import Signals, confidence, frame_signals, step_signals
from rotomem.engine.roi import moved
from rotomem.engine.segments import Segment, Timeline
from rotomem.engine.session import Session
from rotomem.engine.store import SegmentStore, StoredFrame
from rotomem.types import KeyMask, ObjectId, Window

Picture = NDArray[np.float32] | Tensor


class Footage(Protocol):
    """A shot as the passes see it: a plate on disk, or pictures in memory.

    size     (h, w) of the mattes that `mattes` gives
    """

    @property
    def size(self) -> tuple[int, int]: ...

    def window(self, frame: int) -> Window:
        """What is seen of the canvas on a frame; of one size on all of them."""
        ...

    def session(self) -> Session:
        """A fresh one."""
        ...

    def pictures(self, frames: Sequence[int]) -> Generator[tuple[int, Picture | None], None, None]:
        """The frames in this order, with their pictures; None where there is nothing to see."""
        ...

    def masks(self, key: KeyMask) -> Any:
        """A key as the session takes it."""
        ...

    def mattes(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the session says of objects [O, ...] as it is kept, [O, h, w]."""
        ...


@dataclass(frozen=True)
class Shot:
    """One group of objects in its shot.

    objects     of the group, in order
    keys        frame -> what the artist drew there, for objects of the group alone
    timelines   of each of the objects
    """

    objects: tuple[ObjectId, ...]
    keys: Mapping[int, KeyMask]
    timelines: Mapping[ObjectId, Timeline]

    @classmethod
    def of(
        cls,
        objects: Sequence[ObjectId],
        keys: Mapping[int, KeyMask],
        absent: Mapping[ObjectId, Collection[int]] | None = None,
    ) -> Shot:
        """With those of the keys that speak for the objects; `absent` are frames declared by object."""
        own = {f: key for f, every in sorted(keys.items()) if (key := _of(every, objects)) is not None}
        timelines = {i: Timeline.of(i, own, (absent or {}).get(i, ())) for i in objects}
        return cls(tuple(objects), own, timelines)

    def shares(self, frame: int, direction: str) -> dict[ObjectId, float]:
        """The forward pass's share in every object that a pass has to tell of on a frame, 0..1."""
        shares = {}
        for number, line in self.timelines.items():
            there = line.forward(frame) if direction != "backward" else None
            back = line.backward(frame) if direction != "forward" else None
            if not (line.is_key(frame) or line.is_absent(frame) or (there is None and back is None)):
                shares[number] = share_forward(there, back)
        return shares


def _of(key: KeyMask, objects: Sequence[ObjectId]) -> KeyMask | None:
    """What a key says of some objects; None where it says nothing of them."""
    rows = [i for i, number in enumerate(key.objects) if number in objects]
    if len(rows) == len(key.objects):
        return key
    return KeyMask(key.frame, tuple(key.objects[i] for i in rows), key.alpha[rows], key.paths) if rows else None


@dataclass(frozen=True)
class Pass:
    """One direction over one segment.

    frames   in the order they are stepped; the first is a key frame
    primed   key frames that are remembered beforehand
    absent   frame -> objects that are nowhere on it, or that this pass has not met a key of yet
    """

    frames: tuple[int, ...]
    primed: tuple[int, ...]
    absent: Mapping[int, frozenset[ObjectId]]


def plan_pass(shot: Shot, segment: Segment, needed: Collection[int], *, forward: bool) -> Pass | None:
    """The pass that tells of the `needed` frames; None where none is needed.

    It begins on the first key frame in its direction that shows an object, and ends on the last frame needed.
    Frames without an object that it could follow are passed over.
    """
    if not needed:
        return None

    def met(number: ObjectId, frame: int) -> bool:
        line = shot.timelines[number]
        return (line.forward(frame) if forward else line.backward(frame)) is not None

    def followed(frame: int) -> list[ObjectId]:
        return [i for i in shot.objects if met(i, frame) and not shot.timelines[i].is_absent(frame)]

    end = segment.left if forward else segment.right
    starts = [*segment.inner] if forward else [*reversed(segment.inner)]
    start = next(f for f in ([] if end is None else [end]) + starts if followed(f))
    low, high = (start, max(needed)) if forward else (min(needed), start)
    order = sorted({start, *(f for f in segment.frames if low <= f <= high)}, reverse=not forward)
    frames, absent = [], {}
    for frame in order:
        there = followed(frame)
        key = shot.keys.get(frame)
        if there or key is not None:
            frames.append(frame)
            absent[frame] = frozenset(shot.objects) - {*there, *(key.objects if key is not None else ())}
    primed = tuple(f for f in segment.keys if f not in segment.inner and f != start)
    return Pass(tuple(frames), primed, absent)


@dataclass(frozen=True)
class Told:
    """What a pass says of a frame: nothing of one without a picture.

    signals   of the step, by object (`confidence.step_signals`)
    """

    frame: int
    mattes: Mattes = field(default_factory=dict)
    signals: Signals = field(default_factory=dict)


def run_pass(plan: Pass, shot: Shot, footage: Footage) -> Generator[Told, None, None]:
    """The frames of a pass in its order, with what it says of each."""
    session = footage.session()
    earlier: Mattes = {}
    window: Window | None = None
    with closing(footage.pictures((*plan.primed, *plan.frames))) as pictures:
        for i, (frame, picture) in enumerate(pictures):
            key = shot.keys.get(frame)
            if i < len(plan.primed):
                assert key is not None
                if picture is not None:
                    session.remember(picture, footage.masks(key), objects=key.objects)
                continue
            if picture is None:
                yield Told(frame)
                continue
            before, window = window, footage.window(frame)
            if before is not None:
                session.shift(*moved(before, window, footage.size, session.model.plan.stride))
            absent, last = plan.absent[frame], i + 1 == len(plan.primed) + len(plan.frames)
            if key is None:
                probabilities = session.step(picture, absent=absent, last=last)
            else:
                masks = footage.masks(key)
                probabilities = session.step(picture, masks, objects=key.objects, absent=absent, last=last)
            rows = [k for k, number in enumerate(session.objects) if number not in absent]
            planes = footage.mattes(probabilities[[1 + k for k in rows]])
            mattes = {session.objects[k]: plane for k, plane in zip(rows, planes, strict=True)}
            match = session.match_distance()
            yield Told(frame, mattes, {n: step_signals(p, earlier.get(n), match[n]) for n, p in mattes.items()})
            earlier = mattes


def track_segment(
    shot: Shot,
    segment: Segment,
    footage: Footage,
    scratch: Path,
    *,
    direction: str = "both",
    wanted: Collection[int] | None = None,
) -> Iterator[StoredFrame]:
    """What the network says of a segment's frames, each as soon as it is known, in the order that comes of it.

    scratch   a folder for what one pass says while the other runs
    wanted    frames that are asked for; None: all. Passes run no further than these need
    """
    shares = {f: shot.shares(f, direction) for f in segment.frames if wanted is None or f in wanted}
    ahead = {f for f, share in shares.items() if any(s > 0 for s in share.values())}
    behind = {f for f, share in shares.items() if any(s < 1 for s in share.values())}

    def keep(there: Told, back: Told) -> StoredFrame:
        share = shares[there.frame]
        blended = blend(there.mattes, back.mattes, share)
        signals = _signals(shot, blended, there, back, share)
        return StoredFrame.of(there.frame, blended, footage.window(there.frame), footage.size, signals)

    for frame in sorted(set(shares) - ahead - behind):
        yield keep(Told(frame), Told(frame))
    backward = plan_pass(shot, segment, behind, forward=False)
    forward = plan_pass(shot, segment, ahead, forward=True)
    with SegmentStore(scratch, durable=False).begin("backward", {}) as waiting:
        if backward is not None:
            with closing(run_pass(backward, shot, footage)) as told:
                for back in told:
                    frame = back.frame
                    if frame in ahead and frame in behind:
                        waiting.put(
                            StoredFrame.of(frame, back.mattes, footage.window(frame), footage.size, back.signals)
                        )
                    elif frame in behind:
                        yield keep(Told(frame), back)
        if forward is not None:
            with closing(run_pass(forward, shot, footage)) as told:
                for there in told:
                    frame = there.frame
                    if frame in ahead:
                        back = Told(frame)
                        if frame in behind:
                            waited = waiting.read(frame)
                            back = Told(frame, waited.mattes, waited.signals)
                        yield keep(there, back)


def _signals(shot: Shot, blended: Mattes, there: Told, back: Told, shares: Mapping[ObjectId, float]) -> Signals:
    """What quality control wants to know of every object that a pass saw, and the confidence that comes of it."""
    signals: dict[ObjectId, dict[str, float]] = {}
    like = next(iter((there.mattes or back.mattes or blended).values()), None)
    for number, share in shares.items():
        steps = [told.signals[number] for told in (there, back) if number in told.signals]
        if like is None or not steps:
            continue
        nothing = np.zeros_like(like)
        matte, first, second = (m.get(number, nothing) for m in (blended, there.mattes, back.mattes))
        if 0 < share < 1:
            own = frame_signals(matte, forward=first, backward=second)
        else:
            line = shot.timelines[number]
            origin = line.forward(there.frame) if share >= 1 else line.backward(there.frame)
            assert origin is not None
            own = frame_signals(matte, distance=origin.distance)
        leading = there if share >= 0.5 and number in there.signals else back
        own |= leading.signals.get(number, {})
        if matches := [step["match"] for step in steps if "match" in step]:
            own["match"] = min(matches)
        signals[number] = {**own, "confidence": confidence(own)}
    return signals
