"""What more key frames buy: sequences tracked from several keys, by the very passes that `track` runs.

Keys are true masks, spread evenly: the first frame; the first and the last one; a third in the middle; and so on.
An object that the first frame does not show gets a key of its own where it is first seen. Two numbers of keys can be
compared on the frames that are key frames in neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.passes import Shot, track_segment
from rotomem.engine.pipeline import read_ahead
from rotomem.engine.segments import plan_segments
from rotomem.engine.session import Session
from rotomem.engine.store import StoredFrame
from rotomem.errors import InputError
from rotomem.evaluation.davis import (
    Labels,
    ObjectScore,
    SequenceScore,
    Truth,
    VideoSequence,
    check_finite,
    counts,
    ids_of,
    read_picture,
)
from rotomem.evaluation.gauge import Gauge
from rotomem.evaluation.measures import boundary_accuracy, region_similarity, statistics
from rotomem.types import KeyMask, ObjectId, Window


class PictureFootage:
    """Pictures in the place of a plate; see `passes.Footage`. Masks and mattes are of the pictures' size.

    session   makes a fresh one
    gauge     reads the cost of every step
    on_step   called with each frame that a pass has taken
    """

    def __init__(
        self,
        images: Sequence[Path],
        session: Callable[[], Session],
        gauge: Gauge,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        height, width = read_picture(images[0]).shape[:2]
        self._canvas, self.size = Window(0, 0, width, height), (height, width)
        self.session = session
        self._images, self._gauge, self._on_step = images, gauge, on_step

    def pictures(self, frames: Sequence[int]) -> Generator[tuple[int, NDArray[np.float32]], None, None]:
        """See Footage."""
        read = read_ahead([self._images[f] for f in frames], read_picture, ahead=2, threads=1)
        with closing(read) as ready:
            for frame, picture in zip(frames, ready, strict=True):
                with self._gauge.step():
                    yield frame, picture
                if self._on_step:
                    self._on_step(frame)

    def window(self, frame: int) -> Window:
        """See Footage."""
        return self._canvas

    def masks(self, key: KeyMask) -> NDArray[np.float32]:
        """See Footage."""
        return key.alpha

    def mattes(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """See Footage."""
        return probabilities


def spread(count: int, annotated: Sequence[int]) -> list[int]:
    """So many of the annotated frames, evenly: the first; the first and the last; ...

    Raises InputError where there are fewer.
    """
    if count > len(annotated):
        raise InputError(f"{count} keys on {len(annotated)} annotated frames", remedy="ask for fewer keys")
    last = len(annotated) - 1
    return [annotated[round(i * last / max(count - 1, 1))] for i in range(count)]


def true_keys(
    frames: Collection[int], annotated: Sequence[int], labels: Callable[[int], Labels]
) -> dict[int, KeyMask]:
    """Keys on those frames, and where an object is first seen.

    A key speaks for the objects it shows, since one that is hidden may come back; the last annotated frame's for all
    that were seen, since nothing comes after.
    """
    keys: dict[int, KeyMask] = {}
    known: list[ObjectId] = []
    for frame in annotated:
        drawn = labels(frame)
        shown = ids_of(drawn)
        new = [i for i in shown if i not in known]
        known += new
        objects = new if frame not in frames else sorted(known) if frame == annotated[-1] else shown
        if objects:
            keys[frame] = KeyMask(frame, tuple(objects), np.stack([drawn == i for i in objects]).astype(np.float32))
    return keys


def track_pictures(
    shot: Shot, footage: PictureFootage, frames: Sequence[int], **options: int
) -> Iterator[StoredFrame]:
    """Every frame of a shot but those on which all objects were drawn, as each becomes known.

    options   `neighbours` of plan_segments
    """
    keys = {f: key.objects for f, key in shot.keys.items()}
    with tempfile.TemporaryDirectory(prefix="rotomem-") as scratch:
        for segment in plan_segments(frames, keys, shot.objects, **options):
            yield from track_segment(shot, segment, footage, Path(scratch))


def run_keyed(
    sequence: VideoSequence,
    session: Callable[[], Session],
    count: int,
    *,
    skip: Collection[int] = (),
    limit: int | None = None,
    neighbours: int = 1,
    on_step: Callable[[int], None] | None = None,
) -> SequenceScore:
    """Track one sequence from so many keys and measure every frame that counts and is no key.

    skip      frames that do not count either: the keys of other runs it is compared with
    limit     only the first so many frames
    on_step   called with every frame that a pass has taken

    Raises InputError where there are fewer annotations than keys.
    """
    frames = range(len(sequence.images[:limit]))
    truth, gauge = Truth(sequence), Gauge()
    annotated = [f for f in frames if f in sequence.annotations]

    def labels(frame: int) -> Labels:
        found = truth.labels(frame)
        assert found is not None
        return found

    keys = true_keys(spread(count, annotated), annotated, labels)
    objects = sorted({i for key in keys.values() for i in key.objects})
    if not objects:
        raise InputError("no annotation shows an object", remedy="check the labels", path=sequence.images[0].parent)
    shot = Shot.of(objects, keys)
    first = {i: min(f for f, key in keys.items() if i in key.objects) for i in objects}
    scores: dict[ObjectId, dict[int, tuple[float, float]]] = {i: {} for i in objects}
    footage = PictureFootage(sequence.images[:limit], session, gauge, on_step)
    for stored in track_pictures(shot, footage, frames, neighbours=neighbours):
        frame = stored.frame
        if (
            frame in keys
            or frame in skip
            or frame not in annotated
            or not counts(sequence.protocol, frame, len(frames))
        ):
            continue
        drawn, answer = labels(frame), labels_of(stored, objects)
        for matte in stored.mattes.values():
            check_finite(matte, sequence.name, frame)
        void = drawn == 255 if truth.has_void else None
        for i in objects:
            if frame > first[i]:
                here, there = answer == i, drawn == i
                scores[i][frame] = region_similarity(here, there, void), boundary_accuracy(here, there, void=void)
    height, width = footage.size
    told = []
    for i in objects:
        measured = [scores[i][frame] for frame in sorted(scores[i])]
        j, f = [pair[0] for pair in measured], [pair[1] for pair in measured]
        category, seen = sequence.categories.get(i), sequence.seen.get(i)
        told.append(ObjectScore(i, first[i], len(j), statistics(j), statistics(f), category, seen))
    return SequenceScore(sequence.dataset, sequence.name, len(frames), (width, height), gauge.cost, tuple(told))


def labels_of(stored: StoredFrame, objects: Sequence[ObjectId]) -> Labels:
    """The label map of a frame: the likeliest of background and objects."""
    nothing = np.zeros(stored.size, np.float32)
    rows = np.stack([stored.mattes.get(i, nothing) for i in objects])
    best = np.concatenate([1 - rows.sum(0, keepdims=True), rows]).argmax(0)
    labels: Labels = np.array([0, *objects], np.uint8)[best]
    return labels
