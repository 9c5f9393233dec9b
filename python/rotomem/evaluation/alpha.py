"""Take the error of soft mattes against fractional truth.

An object's key is the first true matte that shows it; every later one counts. A figure is the mean over frames per
object, then over objects. All pixels count: there is no trimap, since nobody draws one for a shot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import InputError, ShapeError
from rotomem.evaluation import measures
from rotomem.evaluation.alpha_clips import AlphaClip, Alphas, Picture
from rotomem.evaluation.coarse import CoarseListener
from rotomem.evaluation.davis import Stepper, check_finite
from rotomem.evaluation.gauge import Cost, Gauge
from rotomem.evaluation.temporal import dt_ssd, flicker, messd_dt
from rotomem.matting.motion import Motion, estimate_motion

VISIBLE = 0.5
"""A matte shows its object from this coverage on; a faint trace is no key."""


@dataclass(frozen=True)
class AlphaErrors:
    """Means over the frames that count; NaN where none does. Lower is better.

    sad, gradient, connectivity   in thousands (`measures`); mse a mean
    dt_ssd, messd_dt              of pairs of neighbouring frames, times 100 and 1000 (`temporal`)
    """

    sad: float
    mse: float
    gradient: float
    connectivity: float
    dt_ssd: float
    messd_dt: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class AlphaScore:
    """Errors of one object.

    matte      what the tracker delivered
    bicubic    its probability at the decoder's raster, enlarged bicubically; None where nobody listened, NaN where
               the model does not tell
    j          region similarity of matte and truth above one half
    flicker, truth_flicker   pixels of edge (`temporal.flicker`)
    """

    name: str
    key_frame: int
    frames: int
    matte: AlphaErrors
    bicubic: AlphaErrors | None
    j: float
    flicker: float
    truth_flicker: float


@dataclass(frozen=True)
class AlphaClipScore:
    """What one sequence gave. size: (width, height) of its pictures."""

    dataset: str
    name: str
    frames: int
    size: tuple[int, int]
    cost: Cost
    objects: tuple[AlphaScore, ...]


@dataclass(frozen=True)
class AlphaSummary:
    """Means over objects that have a frame that counts; fields as in AlphaScore."""

    objects: int
    matte: AlphaErrors
    bicubic: AlphaErrors | None
    j: float
    flicker: float
    truth_flicker: float


class _Errors:
    """Errors of one kind of matte of one object, gathered frame by frame."""

    def __init__(self, index: int, matte: Alphas, truth: Alphas) -> None:
        self._lists: dict[str, list[float]] = {f.name: [] for f in fields(AlphaErrors)}
        self._before = (index, matte, truth)

    def add(self, index: int, matte: Alphas, truth: Alphas, motion: Motion) -> None:
        """One frame; motion [H, W, 2] leads to it from the frame before."""
        found = {
            "sad": measures.sad(matte, truth),
            "mse": measures.mse(matte, truth),
            "gradient": measures.gradient_error(matte, truth),
            "connectivity": measures.connectivity_error(matte, truth),
        }
        if self._before[0] == index - 1:
            pair = (self._before[1], matte, self._before[2], truth)
            found.update(dt_ssd=dt_ssd(*pair), messd_dt=messd_dt(*pair, motion))
        for name, value in found.items():
            self._lists[name].append(value)
        self._before = (index, matte, truth)

    def mean(self) -> AlphaErrors:
        return AlphaErrors(**{name: measures.mean_known(values) for name, values in self._lists.items()})


class _Tally:
    """What is known of one object while its clip runs; it begins on the object's key."""

    def __init__(self, index: int, matte: Alphas, truth: Alphas) -> None:
        self.key_frame = index
        self.matte, self.bicubic = _Errors(index, matte, truth), _Errors(index, matte, truth)
        self.j: list[float] = []
        self.flicker: list[float] = []
        self.truth_flicker: list[float] = []
        self._before: tuple[Alphas, Alphas | None] = (matte, truth)

    def add(
        self,
        index: int,
        matte: Alphas,
        bicubic: Alphas | None,
        truth: Alphas | None,
        motion: Motion,
        known: NDArray[np.bool_],
    ) -> None:
        """One frame after the key; motion [H, W, 2] leads to it from the frame before, where it is `known`."""
        before, true_before = self._before
        self._before = (matte, truth)
        self.flicker.append(flicker(before, matte, motion, known))
        if truth is None:
            return
        if true_before is not None:
            self.truth_flicker.append(flicker(true_before, truth, motion, known))
        self.matte.add(index, matte, truth, motion)
        if bicubic is not None:
            self.bicubic.add(index, bicubic, truth, motion)
        self.j.append(measures.region_similarity(matte >= 0.5, truth >= 0.5))


def run_alpha(
    clip: AlphaClip,
    stepper: Stepper,
    *,
    coarse: CoarseListener | None = None,
    limit: int | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> AlphaClipScore:
    """Track one clip from its keys and measure every frame after them.

    stepper    fresh: it has seen nothing
    coarse     listens to the stepper's model; its bicubic enlargement is measured beside what was delivered
    limit      only the first so many frames
    on_frame   called with the index of every frame that is done

    Raises ShapeError where a matte is not of its picture's size, InputError where no matte shows an object.
    """
    frames = min(clip.length, limit or clip.length)
    gauge = Gauge()
    tallies: dict[int, _Tally] = {}
    picture_before: Picture | None = None
    size = (0, 0)
    for index, (picture, truth) in zip(range(frames), clip.frames(), strict=False):
        height, width = picture.shape[:2]
        size = (width, height)
        if truth is not None and truth.shape != (len(clip.objects), height, width):
            raise ShapeError(
                f"the mattes are {list(truth.shape)}, their picture {[height, width]}",
                remedy="use pictures and mattes of one resolution",
                sequence=clip.name,
                frame=index,
            )
        new = [] if truth is None else [i for i, a in enumerate(truth, 1) if i not in tallies and a.max() >= VISIBLE]
        if not tallies and not new:
            continue
        rows = None if truth is None or not new else np.ascontiguousarray(truth[[i - 1 for i in new]])
        with gauge.step():
            probabilities = stepper.step(picture, rows, objects=new or None, last=index == frames - 1)
        check_finite(probabilities, clip.name, index)
        mattes = dict(zip(stepper.objects, probabilities[1:], strict=True))
        enlarged = coarse.enlarged(height, width) if coarse else None
        bicubic = {} if enlarged is None else dict(zip(stepper.objects, enlarged[1:], strict=False))
        if tallies:
            assert picture_before is not None
            motion, known = estimate_motion(picture_before, picture)
            for i, tally in tallies.items():
                true = None if truth is None else truth[i - 1]
                tally.add(index, mattes[i], bicubic.get(i), true, motion, known)
        if truth is not None:
            tallies.update({i: _Tally(index, mattes[i], truth[i - 1]) for i in new})
        picture_before = picture
        if on_frame:
            on_frame(index)
    if not tallies:
        raise InputError(f"no matte of {clip.name} shows an object", remedy="check the mattes", dataset=clip.dataset)
    scores = tuple(
        AlphaScore(
            clip.objects[i - 1],
            tally.key_frame,
            len(tally.j),
            tally.matte.mean(),
            tally.bicubic.mean() if coarse else None,
            measures.mean_known(tally.j),
            measures.mean_known(tally.flicker),
            measures.mean_known(tally.truth_flicker),
        )
        for i, tally in sorted(tallies.items())
    )
    return AlphaClipScore(clip.dataset, clip.name, frames, size, gauge.cost, scores)


def summarise_alpha(scores: Iterable[AlphaClipScore]) -> AlphaSummary:
    """Means over all objects that have a frame that counts."""
    objects = [o for s in scores for o in s.objects if o.frames]
    listened = [o.bicubic for o in objects if o.bicubic is not None]

    def mean(errors: Sequence[AlphaErrors]) -> AlphaErrors:
        names = [f.name for f in fields(AlphaErrors)]
        return AlphaErrors(**{n: measures.mean_known(getattr(e, n) for e in errors) for n in names})

    return AlphaSummary(
        len(objects),
        mean([o.matte for o in objects]),
        mean(listened) if listened else None,
        measures.mean_known(o.j for o in objects),
        measures.mean_known(o.flicker for o in objects),
        measures.mean_known(o.truth_flicker for o in objects),
    )
