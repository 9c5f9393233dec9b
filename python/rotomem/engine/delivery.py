"""From what the network said to mattes on disk: groups together, finished at plate resolution, keys as drawn.

A frame is delivered as soon as every group has told of it, and of the neighbours that finishing looks at. Of a group
that was drawn whole on a frame nothing has to be told. Neighbours end where a segment ends, so that what happens
beyond a key changes nothing on this side of it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.blend import Mattes, Outputs, beside, together, within_one
from rotomem.engine.confidence import Signals
from rotomem.engine.footage import PlateFootage, Seen
from rotomem.engine.passes import Shot
from rotomem.engine.pipeline import Clock, WriteBehind
from rotomem.engine.provenance import Credits
from rotomem.engine.segments import Segment
from rotomem.engine.store import StoredFrame
from rotomem.io.mattes import MatteWriter
from rotomem.types import ObjectId

_WRITE_DEPTH = 2


class Reader(Protocol):
    """Where a stored frame is read from, by any thread."""

    def read(self, frame: int) -> StoredFrame: ...


class Finish(Protocol):
    """What makes mattes at plate resolution of what the network said.

    reach    frames it looks at on either side
    pixels   whether it looks at the plate's pixels
    """

    reach: int
    pixels: bool

    def finish(self, frames: Sequence[StoredFrame], at: int, footage: PlateFootage, seen: Seen) -> Mattes:
        """The objects of one group on frames[at], each [H, W] on the canvas.

        frames    the frame and its neighbours, ascending, `reach` on either side or fewer
        footage   for the pictures of the neighbours: `recall`
        seen      the frame itself
        """
        ...


class Delivery:
    """Writes the wanted frames of a run, each once, in a thread of its own.

    shots      groups of objects, with their keys
    segments   of each group
    credits    what files say they were made from
    wanted     frames to deliver
    ordered    whether files have to be written in ascending order (a movie)
    outputs    what is delivered of the objects
    """

    def __init__(
        self,
        writer: MatteWriter,
        footage: PlateFootage,
        finish: Finish,
        clock: Clock,
        *,
        shots: Sequence[Shot],
        segments: Sequence[Sequence[Segment]],
        credits: Credits,
        wanted: Collection[int],
        ordered: bool,
        outputs: Outputs,
    ) -> None:
        self.written: deque[int] = deque()
        self.signals: dict[int, dict[str, Mapping[str, float]]] = {}
        """Frame -> object's name -> what is known of the matte written; to be read once it is closed."""
        self._writer, self._footage, self._finish, self._clock = writer, footage, finish, clock
        self._shots, self._credits, self._outputs = shots, credits, outputs
        self._segments = [{f: segment for segment in own for f in segment.frames} for own in segments]
        self._answers: list[dict[int, StoredFrame | Reader]] = [{} for _ in shots]
        self._waiting = sorted(wanted)
        self._left = set(wanted)
        self._unwritten = set(wanted)
        self._ordered = ordered
        self._behind = WriteBehind(self._deliver, depth=_WRITE_DEPTH)

    def begin(self) -> None:
        """Deliver what needs no network: frames on which everything was drawn."""
        self._release(self._waiting)

    def arrived(self, group: int, frame: int, answer: StoredFrame | Reader) -> None:
        """A group's answer about a frame, or where it can be read; what is given is held until nobody needs it."""
        self._answers[group][frame] = answer
        self._release(self._around(group, frame))

    def close(self) -> None:
        """Wait for what was begun. Raises the writer's error."""
        self._behind.finish()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to deliver."""
        return not self._left

    def neighbours(self, wanted: Collection[int]) -> set[int]:
        """Frames that have to be told of, for these to be delivered."""
        return {near for f in wanted for group in range(len(self._shots)) for near in self._around(group, f)}

    def _around(self, group: int, frame: int) -> tuple[int, ...]:
        """The frame and its neighbours in its segment, ascending; none where the group was drawn whole."""
        segment = self._segments[group].get(frame)
        if segment is None:
            return ()
        at, reach = bisect_left(segment.frames, frame), self._finish.reach
        return segment.frames[max(at - reach, 0) : at + reach + 1]

    def _release(self, frames: Sequence[int]) -> None:
        """Hand over those of the frames that are complete; of a movie as many as follow the last one."""
        if self._ordered:
            while self._waiting and self._ready(self._waiting[0]):
                self._hand_over(self._waiting.pop(0))
            return
        for frame in tuple(frames):
            if frame in self._left and self._ready(frame):
                self._hand_over(frame)

    def _hand_over(self, frame: int) -> None:
        self._left.discard(frame)
        self._behind.put(frame)

    def _ready(self, frame: int) -> bool:
        return all(near in answers for g, answers in enumerate(self._answers) for near in self._around(g, frame))

    def _answer(self, group: int, frame: int) -> StoredFrame:
        answer = self._answers[group][frame]
        return answer if isinstance(answer, StoredFrame) else answer.read(frame)

    def _let_go(self, frame: int) -> None:
        """A frame is written: drop the answers that no frame is left for."""
        self._unwritten.discard(frame)
        for group, answers in enumerate(self._answers):
            for near in self._around(group, frame):
                if self._unwritten.isdisjoint(self._around(group, near)):
                    answers.pop(near, None)

    def _deliver(self, frame: int) -> None:
        """Finish and write one frame; in the writer's thread."""
        seen = self._footage.recall(frame)
        with self._clock.busy("finish"):
            told: Mattes = {}
            drawn: Mattes = {}
            signals: dict[ObjectId, Mapping[str, float]] = {}
            for group, shot in enumerate(self._shots):
                around = self._around(group, frame)
                if around:
                    stored = [self._answer(group, near) for near in around]
                    told.update(self._finish.finish(stored, around.index(frame), self._footage, seen))
                    signals.update(stored[around.index(frame)].signals)
                if (key := shot.keys.get(frame)) is not None:
                    drawn.update(zip(key.objects, key.alpha, strict=True))
                    signals.update({n: {"confidence": 1.0} for n in key.objects})
            delivered = together(beside(drawn, within_one(told)), self._outputs)
            alone = self._alone(told, drawn, delivered)
        known = self.signals[frame] = self.known(signals)

        def of(objects: tuple[ObjectId, ...]) -> dict[str, str]:
            names = [self._writer.objects[number] for number in objects]
            confidence = {name: round(known[name]["confidence"], 3) for name in names if name in known}
            more = {"confidence": json.dumps(confidence, ensure_ascii=False)} if confidence else {}
            return {**more, **self._credits.told(frame, objects, alone=objects in alone)}

        with self._clock.busy("write"):
            self._writer.write(seen.plate, delivered, of=of)
        self._let_go(frame)
        self.written.append(frame)

    def _alone(self, told: Mattes, drawn: Mattes, delivered: Mattes) -> set[tuple[ObjectId, ...]]:
        """Which stills, by the objects they hold, would be the same without the groups that have no part in them."""
        alone = set()
        own: dict[frozenset[int], Mattes] = {self._credits.everyone: delivered}
        for held in self._writer.held:
            groups = self._credits.groups(held)
            if groups not in own:
                objects = {i for group in groups for i in self._shots[group].objects}
                own[groups] = together(beside(_only(drawn, objects), within_one(_only(told, objects))), self._outputs)
            if all(_same(own[groups].get(number), delivered.get(number)) for number in held):
                alone.add(held)
        return alone

    def known(self, signals: Signals) -> dict[str, Mapping[str, float]]:
        """Output's name -> what is known of it: of several objects that make it, what is known of the worst."""
        known = {}
        for number, name in self._writer.objects.items():
            parts = [signals[part] for part in self._outputs[number][1] if part in signals]
            if parts:
                known[name] = min(parts, key=lambda of: of["confidence"])
        return known


def _only(mattes: Mattes, objects: Collection[ObjectId]) -> Mattes:
    return {number: matte for number, matte in mattes.items() if number in objects}


def _same(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
