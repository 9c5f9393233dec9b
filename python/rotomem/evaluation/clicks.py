"""Clicks as an artist would set them, from a mask that is known: how good is a segmenter that answers clicks?

The protocol of interactive segmentation (Xu et al., "Deep interactive object selection", CVPR 2016, section 4;
Sofiiuk et al., "f-BRS", CVPR 2020, section 4): the first click lies at the most interior point of the object; each
one after it at the most interior point of the largest error, inside the object or outside of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.options import DEFAULT_SIZE
from rotomem.errors import InputError, ShapeError
from rotomem.evaluation.davis import Truth, VideoSequence, ids_of, read_picture
from rotomem.evaluation.measures import Mask, region_similarity
from rotomem.models.interface import VOSModel
from rotomem.prompts.marks import Mark, Prompt, click
from rotomem.prompts.prompter import Prompter


def interior_distance(mask: Mask) -> NDArray[np.float64]:
    """How far each pixel [H, W] of a mask is from the nearest pixel that is not of it, in pixels; 0 outside.

    What lies beyond the picture is not of the mask. Exact Euclidean: distances along columns, then for every row the
    lower envelope over all columns (Felzenszwalb and Huttenlocher, 2012, equation 2, evaluated plainly).
    """
    out = np.zeros(mask.shape)
    if not mask.any():
        return out
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inner = np.pad(mask[box], 1)
    h, w = inner.shape
    y = np.arange(h)[:, None]
    above = np.maximum.accumulate(np.where(inner, -1, y), axis=0)
    below = np.minimum.accumulate(np.where(inner, h, y)[::-1], axis=0)[::-1]
    along = np.minimum(y - above, below - y).astype(np.float64) ** 2
    x = np.arange(w)
    across = (x[:, None] - x[None]).astype(np.float64) ** 2
    squares = np.stack([(across + row).min(1) for row in along])
    out[box] = np.sqrt(squares)[1:-1, 1:-1]
    return out


def next_click(truth: Mask, mask: Mask, before: Sequence[Mark] = ()) -> Mark | None:
    """Where the artist would click next, or None where nothing is wrong.

    truth, mask   [H, W] bool: the object, and what was answered so far; nothing at first
    before        the clicks so far, whose pixels are not clicked again
    """
    if truth.shape != mask.shape:
        raise ShapeError(f"truth is {list(truth.shape)} and mask is {list(mask.shape)}")
    missed, extra = interior_distance(truth & ~mask), interior_distance(mask & ~truth)
    for mark in before:
        ((x, y),) = mark.points
        missed[int(y), int(x)] = extra[int(y), int(x)] = 0
    inside = bool(missed.max() >= extra.max())
    distance = missed if inside else extra
    if distance.max() == 0:
        return None
    row, column = divmod(int(distance.argmax()), distance.shape[1])
    return click(column + 0.5, row + 0.5, inside)


@dataclass(frozen=True)
class Answers:
    """Region similarity J after 1, 2, ... clicks; the last one repeats where no click was left to make."""

    j: tuple[float, ...]
    clicks: tuple[Mark, ...]


def answer_clicks(segment: Callable[[Sequence[Mark]], Mask], truth: Mask, count: int) -> Answers:
    """Let `segment` answer up to `count` simulated clicks on one object.

    segment   all clicks so far to a mask [H, W] bool
    """
    clicks: list[Mark] = []
    scores: list[float] = []
    mask = np.zeros_like(truth)
    for _ in range(count):
        further = next_click(truth, mask, clicks)
        if further is not None:
            clicks.append(further)
            mask = segment(clicks)
        scores.append(region_similarity(mask, truth))
    return Answers(tuple(scores), tuple(clicks))


@dataclass(frozen=True)
class ClickScore:
    """One sequence's first annotated frame, its objects clicked one by one.

    j         after 1, 2, ... clicks, mean over the objects
    answer_s  seconds that an answer took, mean
    """

    dataset: str
    name: str
    objects: int
    j: tuple[float, ...]
    answer_s: float


def run_clicks(
    sequence: VideoSequence, model: VOSModel, count: int, *, size: int | None = DEFAULT_SIZE
) -> ClickScore:
    """Click up to `count` times on every object of a sequence's first annotated frame.

    Raises InputError where that shows none.
    """
    frame = min(sequence.annotations)
    labels = Truth(sequence).labels(frame)
    ids = [] if labels is None else ids_of(labels)
    if labels is None or not ids:
        raise InputError("the first annotation shows no object", path=sequence.annotations[frame])
    prompter = Prompter(model, read_picture(sequence.images[frame]), size=size)
    seconds: list[float] = []

    def segment(marks: Sequence[Mark]) -> Mask:
        started = time.perf_counter()
        (mask,) = prompter.masks({"object": Prompt(tuple(marks))})
        seconds.append(time.perf_counter() - started)
        return mask > 0.5

    scores = [answer_clicks(segment, labels == number, count).j for number in ids]
    mean = tuple(float(j) for j in np.mean(scores, axis=0))
    return ClickScore(sequence.dataset, sequence.name, len(ids), mean, sum(seconds) / len(seconds))
