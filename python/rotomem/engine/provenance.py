"""What a matte was made from: by name for people, as a digest for everything that must tell old from new.

A segment's inputs are all that its mattes depend on and nothing else. A change of one key so changes the digests of
the segments that see it, and of no other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rotomem.engine import store
from rotomem.engine.blend import Outputs
from rotomem.engine.passes import Shot
from rotomem.engine.segments import Segment
from rotomem.io.plate import Plate
from rotomem.io.sequence import compact_frames
from rotomem.types import KeyMask, ObjectId


class Made(NamedTuple):
    """What a group's mattes on a frame were made from.

    keys     key frames
    source   a digest of everything that went into it
    """

    keys: frozenset[int]
    source: str


class Credits:
    """What files say they were made from, `keys` and `source`, by frame and by the objects they hold.

    made      frame -> what each group made
    groups    objects that were tracked together
    outputs   what is delivered of the objects

    A file that holds some objects alone names what their groups were made from, as long as no other group's mattes
    took anything from its own: so who adds an object, or edits it, leaves the files of the others as they are. Where
    one did, the file names all groups. A change of a group thus always shows in files of its own; one that has none
    is named everywhere.
    """

    def __init__(
        self, made: Mapping[int, Sequence[Made]], groups: Sequence[Collection[ObjectId]], outputs: Outputs
    ) -> None:
        self._made, self._outputs = made, outputs
        self.returned: frozenset[ObjectId] = frozenset()
        """Objects that the run before knew nothing of: in files of their own that lie there nonetheless, the others
        may be other than they are now, and theirs know nothing of these."""
        self.everyone = frozenset(range(len(groups)))
        self._own = {
            i: frozenset(g for g, group in enumerate(groups) if not set(group).isdisjoint(parts))
            for i, (_, parts) in outputs.items()
        }
        self._unseen = self.everyone.difference(*self._own.values())

    def groups(self, objects: Iterable[ObjectId]) -> frozenset[int]:
        """Groups that a file with these has to name."""
        return self._unseen.union(*(self._own[i] for i in objects))

    def told(self, frame: int, objects: Iterable[ObjectId], *, alone: bool) -> dict[str, str]:
        """What a file with these says; `alone`: no other group took anything from it."""
        objects = tuple(objects)
        made = [self._made[frame][g] for g in (self.groups(objects) if alone else self.everyone)]
        sums = [f"{i} is {'+'.join(map(str, parts))}" for i in objects if (parts := self._outputs[i][1]) != (i,)]
        return {
            "keys": ",".join(map(str, sorted(frozenset[int]().union(*(of.keys for of in made))))),
            "source": text_digest([*sorted(of.source for of in made), *sums]),
            "sums": "; ".join(sums),
        }

    def sources(self, frame: int, objects: Iterable[ObjectId]) -> set[str]:
        """Every `source` that a file with these may have; none at all of objects that came back."""
        objects = tuple(objects)
        if not self.returned.isdisjoint(objects) and self.groups(objects) != self.everyone:
            return {"-"}
        return {self.told(frame, objects, alone=alone)["source"] for alone in (True, False)}

    def source_of_all(self) -> str:
        """For a file that spans all frames."""
        return text_digest(self.told(frame, self._outputs, alone=False)["source"] for frame in self._made)


class Provenance:
    """Inputs and digests of one run's segments and frames.

    common     what all segments share, by name: model, settings, colour, ...
    shots      groups of objects, and `segments` of each
    absent     object -> frames on which it is declared absent
    whole      whether every frame of a segment depends on all of its frames, in one direction too
    reach      frames on either side that finishing looks at
    """

    def __init__(
        self,
        plate: Plate,
        common: Mapping[str, str],
        shots: Sequence[Shot],
        segments: Sequence[Sequence[Segment]],
        *,
        direction: str,
        absent: Mapping[ObjectId, Collection[int]],
        whole: bool,
        reach: int,
    ) -> None:
        self._plate, self._whole, self._reach = plate, whole, reach
        self._common, self._direction, self._absent = dict(common), direction, absent
        self._shots, self._segments = shots, segments
        self._files: dict[int, str] = {}
        self._keys = [{f: key_digests(key) for f, key in shot.keys.items()} for shot in shots]

    def inputs(self, group: int, segment: Segment) -> dict[str, str]:
        """What a segment's mattes depend on, a name for each thing; objects are ids, whatever their names."""
        return {
            **self._of_segment(group, segment),
            "frames": compact_frames(segment.frames),
            **{f"plate {frame}": self._file(frame) for frame in sorted({*segment.frames, *segment.keys})},
        }

    def _of_segment(self, group: int, segment: Segment) -> dict[str, str]:
        """Its inputs but for frames and plate."""
        shot = self._shots[group]
        inputs = {**self._common, "direction": self._direction}
        for frame in segment.keys:
            for number, digest in self._keys[group][frame].items():
                inputs[f"key {frame} object {number}"] = digest
        for number in shot.objects:
            gone = set(self._absent.get(number, ())).intersection(segment.frames)
            inputs[f"absent object {number}"] = compact_frames(gone)
        return inputs

    def made(self) -> dict[int, list[Made]]:
        """Frame -> what its mattes were made from, by group.

        A frame that follows one key alone is made from the plate between the two: a frame that was rendered again
        changes itself and all that follow, a longer shot leaves what is there as it was.
        """
        made: dict[int, list[Made]] = {f: [] for f in self._plate.frames}
        for group, shot in enumerate(self._shots):
            for segment in self._segments[group]:
                sources = self._sources(group, segment)
                for frame in segment.frames:
                    made[frame].append(Made(frozenset(segment.keys), sources[frame]))
            held = {f for segment in self._segments[group] for f in segment.frames}
            for frame in set(shot.keys) - held:
                drawn = (f"{number} {digest}" for number, digest in self._keys[group][frame].items())
                source = text_digest([*drawn, f"{frame} {self._file(frame)}"])
                made[frame].append(Made(frozenset([frame]), source))
        return made

    def _sources(self, group: int, segment: Segment) -> dict[int, str]:
        one_way = (segment.left is None) != (segment.right is None) or self._direction != "both"
        if segment.inner or not one_way or self._whole:
            return dict.fromkeys(segment.frames, store.digest(self.inputs(group, segment)))
        forward = self._direction != "backward" and segment.left is not None
        frames = segment.frames if forward else tuple(reversed(segment.frames))
        chain = hashlib.blake2b(store.digest(self._of_segment(group, segment)).encode(), digest_size=16)
        for frame in segment.keys:
            chain.update(f"{frame} {self._file(frame)}\n".encode("utf-8", "surrogateescape"))
        chained = []
        for frame in frames:
            chain.update(f"{frame} {self._file(frame)}\n".encode("utf-8", "surrogateescape"))
            chained.append(chain.hexdigest())
        last = len(frames) - 1
        return {frame: chained[min(i + self._reach, last)] for i, frame in enumerate(frames)}

    def _file(self, frame: int) -> str:
        """A frame's file by name, size and time of writing, so that a plate may move house."""
        if frame not in self._files:
            path = self._plate.file(frame)
            told = "black"
            if path is not None:
                try:
                    stat = os.stat(path)
                    told = f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
                except OSError:  # gone since it was found; reading it says so
                    told = f"{path.name} gone"
            self._files[frame] = told
        return self._files[frame]


def key_digests(key: KeyMask) -> dict[ObjectId, str]:
    """Object -> what a key says of it: every value."""
    told = {}
    for number, alpha in zip(key.objects, key.alpha, strict=True):
        digest = hashlib.blake2b(f"{alpha.shape}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(alpha).data)
        told[number] = digest.hexdigest()
    return told


def text_digest(texts: Iterable[str]) -> str:
    """A digest of several texts, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
