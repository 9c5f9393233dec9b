"""Does quality control know where a key helps? An artist who follows it, against one who places keys evenly.

Both begin with the truth of the first frame. One then adds the truth of the frame that `quality.suggest` names,
tracks again, and so on; the other spreads as many keys evenly. Both are measured on frames that are keys of neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.passes import Shot, track_segment
from rotomem.engine.segments import Segment, plan_segments
from rotomem.engine.session import Session
from rotomem.engine.store import StoredFrame
from rotomem.errors import InputError
from rotomem.evaluation.davis import Truth, VideoSequence, ids_of
from rotomem.evaluation.gauge import Gauge
from rotomem.evaluation.keyed import PictureFootage, labels_of
from rotomem.evaluation.measures import boundary_accuracy, mean_known, region_similarity
from rotomem.quality.suggest import Curve, flags, suggest
from rotomem.types import KeyMask, ObjectId


@dataclass(frozen=True)
class FrameScore:
    """One object on one frame that is no key: its measures, and what was said of it without the truth."""

    frame: int
    object_id: ObjectId
    j: float
    f: float
    confidence: float
    flagged: bool


@dataclass(frozen=True)
class Corrections:
    """What one sequence gave.

    keys     way of placing -> the frames that were keys in the end
    scores   way of placing -> every frame that is a key of none; "first": before any correction
    """

    dataset: str
    name: str
    keys: Mapping[str, tuple[int, ...]]
    scores: Mapping[str, tuple[FrameScore, ...]]

    def jf(self, place: str) -> float:
        """Mean of J and F over frames and objects."""
        return mean_known((s.j + s.f) / 2 for s in self.scores[place])


PLACES = ("first", "even", "quality")


def as_dict(measured: Sequence[Corrections]) -> dict[str, Any]:
    """The figures as JSON has them, null where there is none. Means are over sequences, calibration over frames."""
    return {
        "sequences": [
            {
                "dataset": one.dataset,
                "name": one.name,
                "keys": {place: list(one.keys[place]) for place in PLACES},
                "jf": {place: _figure(one.jf(place)) for place in PLACES},
                "calibration": {place: _figures(calibration(one.scores[place])) for place in PLACES},
            }
            for one in measured
        ],
        "all": {
            "jf": {place: _figure(mean_known(one.jf(place) for one in measured)) for place in PLACES},
            "calibration": {
                place: _figures(calibration([s for one in measured for s in one.scores[place]])) for place in PLACES
            },
        },
    }


def _figures(of: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _figure(value) for name, value in of.items()}


def _figure(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def calibration(scores: Sequence[FrameScore]) -> dict[str, float]:
    """Whether what was said without the truth is true.

    returns   "rank": Spearman's correlation of confidence and J; mean J of frames that were flagged, and were not;
              the share that was. NaN where there is nothing to compare
    """
    known = [s for s in scores if math.isfinite(s.confidence)]
    return {
        "rank": spearman([s.confidence for s in known], [s.j for s in known]),
        "j_flagged": mean_known(s.j for s in known if s.flagged),
        "j_others": mean_known(s.j for s in known if not s.flagged),
        "flagged": mean_known(float(s.flagged) for s in known),
    }


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, -1..1; equal values share the mean of their ranks. NaN where one side is all equal."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[place]
    return ranks


def run_corrections(
    sequence: VideoSequence,
    session: Callable[[], Session],
    count: int,
    *,
    limit: int | None = None,
    on_track: Callable[[str, int], None] | None = None,
) -> Corrections:
    """Correct a sequence `count` times, both ways.

    session    makes a fresh one
    limit      only the first so many frames
    on_track   called with (way of placing, number of keys) before each tracking

    Raises InputError where the first frame shows no object, or the sequence is too short for so many keys.
    Cost: about 2 + 2 ln(count) trackings of the sequence in both directions; what no new key changes is kept.
    """
    shot = _Sequence(sequence, session, limit)
    total = len(shot.frames)
    if total < 2 * count + 2:
        raise InputError(f"{total} frames are too few for {count} corrections", path=sequence.images[0].parent)
    placed = {"even": even_frames(total, count)}
    tracked: dict[str, list[StoredFrame]] = {}
    keys = [0]
    for k in range(count + 1):
        if on_track:
            on_track("quality", len(keys))
        told = shot.track(keys)
        tracked["first" if k == 0 else "quality"] = told
        if k < count:
            keys = sorted([*keys, worst_frame(shot.curves(told, keys), keys)])
    placed["quality"] = tuple(keys)
    placed["first"] = (0,)
    if on_track:
        on_track("even", count + 1)
    tracked["even"] = shot.track(placed["even"])
    drawn = {f for frames in placed.values() for f in frames}
    scores = {place: shot.scores(told, placed[place], drawn) for place, told in tracked.items()}
    return Corrections(sequence.dataset, sequence.name, placed, scores)


def even_frames(total: int, count: int) -> tuple[int, ...]:
    """The first frame and `count` more, so that none is far: the tail has one key, so it is half as long."""
    return tuple(round(i * (total - 1) / (count + 0.5)) for i in range(count + 1))


def worst_frame(curves: Sequence[Curve], keys: Sequence[int]) -> int:
    """The frame that quality control suggests; the middle of the longest gap where it sees nothing to do."""
    suggestion = suggest(curves)
    if suggestion is not None:
        return suggestion.frame
    last = curves[0].frames[-1]
    gaps = [(there - here, (here + there) // 2) for here, there in pairwise(keys)]
    return max([*gaps, (2 * (last - keys[-1]), last)])[1]


class _Sequence:
    """A sequence with its truth, and what was told of its segments so far."""

    def __init__(self, sequence: VideoSequence, session: Callable[[], Session], limit: int | None) -> None:
        images, truth = sequence.images[:limit], Truth(sequence)
        self.frames = range(len(images))
        self.labels = {f: labels for f in self.frames if (labels := truth.labels(f)) is not None}
        self.objects: tuple[ObjectId, ...] = tuple(ids_of(self.labels[0])) if 0 in self.labels else ()
        if not self.objects:
            raise InputError("the first frame shows no object", path=images[0])
        self._footage = PictureFootage(images, session, Gauge())
        self._told: dict[Segment, list[StoredFrame]] = {}

    def track(self, keys: Sequence[int]) -> list[StoredFrame]:
        """Every frame but the keys, in order. Raises InputError where nobody knows the truth of one of these."""
        if unknown := sorted(set(keys) - set(self.labels)):
            raise InputError(f"frame {unknown[0]} has no annotation to correct with")
        shot = Shot.of(self.objects, {f: self._key(f) for f in keys})
        told: list[StoredFrame] = []
        for segment in plan_segments(self.frames, dict.fromkeys(keys, self.objects), self.objects):
            if segment not in self._told:
                with TemporaryDirectory(prefix="rotomem-") as scratch:
                    self._told[segment] = list(track_segment(shot, segment, self._footage, Path(scratch)))
            told += self._told[segment]
        return sorted(told, key=lambda stored: stored.frame)

    def _key(self, frame: int) -> KeyMask:
        labels = self.labels[frame]
        return KeyMask(frame, self.objects, np.stack([labels == i for i in self.objects]).astype(np.float32))

    def curves(self, told: Sequence[StoredFrame], keys: Sequence[int]) -> list[Curve]:
        """What is known of it without the truth."""
        curves = []
        for number in self.objects:
            confidence = np.full(len(self.frames), np.nan)
            confidence[list(keys)] = 1.0
            for stored in told:
                if number in stored.signals:
                    confidence[stored.frame] = stored.signals[number]["confidence"]
            curves.append(Curve(str(number), tuple(self.frames), confidence, frozenset(keys)))
        return curves

    def scores(
        self, told: Sequence[StoredFrame], keys: Sequence[int], drawn: Collection[int]
    ) -> tuple[FrameScore, ...]:
        """The measures of every annotated frame that is not `drawn` by any way of placing."""
        flagged = {
            (curve.name, frame)
            for curve in self.curves(told, keys)
            for flag in flags(curve)
            for frame in range(flag.first, flag.last + 1)
        }
        scores = []
        for stored in told:
            if stored.frame not in self.labels or stored.frame in drawn:
                continue
            answer, truth = labels_of(stored, self.objects), self.labels[stored.frame]
            for i in self.objects:
                j, f = region_similarity(answer == i, truth == i), boundary_accuracy(answer == i, truth == i)
                confidence = stored.signals.get(i, {}).get("confidence", math.nan)
                scores.append(FrameScore(stored.frame, i, j, f, confidence, (str(i), stored.frame) in flagged))
        return tuple(scores)
