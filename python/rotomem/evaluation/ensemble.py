"""Several looks at one shot, their probabilities averaged: testing at several sizes, and mirrored.

As published for STCN (supplement, section E) and XMem (appendix H): every look has a memory of its own from the
first frame to the last, and only what is delivered is averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rotomem.engine.geometry import from_network, to_network
from rotomem.engine.session import Session
from rotomem.errors import UsageError
from rotomem.types import ObjectId


@dataclass(frozen=True)
class View:
    """One look.

    size      shorter side the network sees; more than the picture has enlarges it, None leaves it as it is
    mirrored  left is right
    """

    size: int | None
    mirrored: bool = False


def views(sizes: Sequence[int | None], *, flip: bool = False) -> tuple[View, ...]:
    """Every size, and with `flip` every size mirrored too. Raises UsageError for no size, or one given twice."""
    if not sizes or len(set(sizes)) != len(sizes):
        raise UsageError(f"sizes are {list(sizes)}", remedy="give every size once")
    return tuple(View(size, mirrored) for mirrored, size in itertools.product((False, True)[: 1 + flip], sizes))


class Ensemble:
    """Steps like a `Session`, through one session a view.

    looks   from `views`
    session makes a fresh session for a size; called once a view
    """

    def __init__(self, looks: Sequence[View], session: Callable[[int | None], Session]) -> None:
        self._looks = [(view, session(view.size)) for view in looks]

    @property
    def objects(self) -> tuple[ObjectId, ...]:
        """As `Session.objects`."""
        return self._looks[0][1].objects

    def step(
        self,
        image: NDArray[np.float32],
        mask: NDArray[Any] | None = None,
        *,
        objects: Sequence[ObjectId] | None = None,
        last: bool = False,
    ) -> NDArray[np.float32]:
        """As `Session.step`, but a mask comes with the ids it speaks for. Mean over the views, [O+1, H, W].

        Raises UsageError for a mask without objects, and what `Session.step` raises.
        """
        if mask is not None and not objects:
            raise UsageError("a mask without objects", remedy="name the ids it speaks for")
        total: NDArray[np.float32] | None = None
        for view, session in self._looks:
            seen = _step(view, session, image, mask, objects, last)
            total = seen if total is None else total + seen
        assert total is not None
        return total / np.float32(len(self._looks))


def _step(
    view: View,
    session: Session,
    image: NDArray[np.float32],
    mask: NDArray[Any] | None,
    objects: Sequence[ObjectId] | None,
    last: bool,
) -> NDArray[np.float32]:
    if view.mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
        mask = None if mask is None else np.ascontiguousarray(mask[..., ::-1])
    height, width = image.shape[:2]
    if view.size is not None and view.size > min(height, width):
        seen = _enlarged_step(view.size, session, image, mask, objects, last)
    else:
        seen = session.step(image, mask, objects=objects, last=last)
    return seen[..., ::-1] if view.mirrored else seen


def _enlarged_step(
    size: int,
    session: Session,
    image: NDArray[np.float32],
    mask: NDArray[Any] | None,
    objects: Sequence[ObjectId] | None,
    last: bool,
) -> NDArray[np.float32]:
    """A step on a picture made larger than it is, which a session does not do by itself."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    h, w = round(height * scale), round(width * scale)
    coverage = None
    if mask is not None:
        rows = np.stack([mask == i for i in objects or ()]) if mask.ndim == 2 else mask
        planes = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).permute(1, 2, 0)
        coverage = to_network(planes, h, w).permute(2, 0, 1).clamp(0, 1).numpy()
    picture = to_network(torch.from_numpy(np.ascontiguousarray(image, np.float32)), h, w).numpy()
    seen = session.step(picture, coverage, objects=objects, last=last)
    return from_network(torch.from_numpy(seen), height, width).numpy()
