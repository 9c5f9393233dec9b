"""How a shot falls apart at its key frames, and which way every object is followed where.

A frame on which the artist drew every object of a group needs no network, and nothing crosses it: what lies between
two of them is a segment, tracked by itself. A key for some objects alone lies inside a segment. Every object has a
timeline of its own, which says from which keys it is followed on a frame: from the one before, from the one after,
from both, or that it is absent.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rotomem.types import KeyMask, ObjectId


@dataclass(frozen=True)
class Segment:
    """A stretch of a shot that is tracked by itself, for one group of objects.

    frames        whose mattes it makes, ascending, without the key frames at its ends
    left, right   key frames at its ends; None where it runs to an end of the shot
    inner         key frames inside it, which speak for some of the objects, ascending; they are among `frames`
    seen          key frames beyond its own ends that it also learns from, ascending
    """

    frames: tuple[int, ...]
    left: int | None
    right: int | None
    inner: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()

    @cached_property
    def keys(self) -> tuple[int, ...]:
        """Every key frame that its mattes depend on, ascending."""
        ends = (f for f in (self.left, self.right) if f is not None)
        return tuple(sorted({*self.inner, *self.seen, *ends}))


def plan_segments(
    frames: Sequence[int],
    keys: Mapping[int, Collection[ObjectId]],
    objects: Iterable[ObjectId],
    *,
    neighbours: int = 1,
) -> tuple[Segment, ...]:
    """The segments of a group of objects, ascending; frames on which all of them are drawn are in none.

    frames       of the shot, ascending
    keys         key frame -> objects that its key speaks for
    neighbours   key frames beyond either end that a segment also sees; a change of any other changes nothing in it
    """
    group = set(objects)
    drawn = [f for f in frames if group.intersection(keys.get(f, ()))]
    whole = [f for f in drawn if group <= set(keys[f])]
    some = sorted(set(drawn) - set(whole))
    segments = []
    for i, (left, right) in enumerate(zip([None, *whole], [*whole, None], strict=True)):
        start = 0 if left is None else bisect_right(frames, left)
        stop = len(frames) if right is None else bisect_left(frames, right)
        if start < stop:
            held = tuple(frames[start:stop])
            inner = tuple(f for f in some if held[0] <= f <= held[-1])
            # whole[i - 1] is the left end and whole[i] the right one.
            before = whole[max(i - 1 - neighbours, 0) : max(i - 1, 0)]
            after = whole[i + 1 : i + 1 + neighbours]
            segments.append(Segment(held, left, right, inner, (*before, *after)))
    return tuple(segments)


@dataclass(frozen=True)
class Origin:
    """Where an object's matte on a frame comes from, in one direction.

    distance   frames to the key that it is followed from
    crossed    whether the object is declared absent in between
    """

    distance: int
    crossed: bool


class Timeline:
    """When one object is where.

    shown    key frames that show it
    empty    key frames that say it is absent, from there on to the next one that shows it
    absent   frames on which it is declared absent
    """

    def __init__(self, shown: Iterable[int], empty: Iterable[int] = (), absent: Iterable[int] = ()) -> None:
        self._shown = frozenset(shown)
        self._keys = sorted({*self._shown, *empty})
        self._absent = sorted(set(absent))

    @classmethod
    def of(cls, number: ObjectId, keys: Mapping[int, KeyMask], absent: Iterable[int] = ()) -> Timeline:
        """An object's timeline by the keys that speak for it."""
        drawn = {f: key.alpha[key.objects.index(number)] for f, key in keys.items() if number in key.objects}
        shown = {f for f, alpha in drawn.items() if np.any(alpha)}
        return cls(shown, set(drawn) - shown, absent)

    def is_key(self, frame: int) -> bool:
        """Whether the artist drew the object there, or drew that it is absent."""
        return _holds(self._keys, frame)

    def is_absent(self, frame: int) -> bool:
        """Whether the artist said that the object is not there."""
        if frame in self._shown:
            return False
        if _holds(self._absent, frame):
            return True
        before = bisect_right(self._keys, frame)
        if before:
            return self._keys[before - 1] not in self._shown
        return not self._keys or self._keys[0] not in self._shown

    def forward(self, frame: int) -> Origin | None:
        """From the key before, or on the frame itself; None where there is none that shows the object."""
        at = bisect_right(self._keys, frame) - 1
        return self._from(self._keys[at], frame) if at >= 0 else None

    def backward(self, frame: int) -> Origin | None:
        """From the key after, or on the frame itself."""
        at = bisect_left(self._keys, frame)
        return self._from(self._keys[at], frame) if at < len(self._keys) else None

    def _from(self, key: int, frame: int) -> Origin | None:
        if key not in self._shown:
            return None
        low, high = sorted((key, frame))
        return Origin(high - low, bisect_right(self._absent, high) > bisect_left(self._absent, low))


def _holds(ordered: Sequence[int], value: int) -> bool:
    at = bisect_left(ordered, value)
    return at < len(ordered) and ordered[at] == value
