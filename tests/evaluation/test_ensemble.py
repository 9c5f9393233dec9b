"""Several views of one shot against single sessions and answers known in advance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rotomem.engine.session import Session
from rotomem.errors import UsageError
from rotomem.evaluation.ensemble import Ensemble, View, views

from .tiny import tiny_model


def scene(t: int, h: int = 48, w: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w].astype(np.float32) / 16
    return np.stack([0.5 + 0.5 * np.sin(x * (1 + c) + y + 0.2 * t) for c in range(3)], -1).astype(np.float32)


def box(h: int = 48, w: int = 64) -> np.ndarray:
    labels = np.zeros((h, w), np.uint8)
    labels[8:32, 4:24], labels[20:40, 40:60] = 1, 4
    return labels


class Fake:
    """A session that says the picture's red is object 1, and notes what it was given."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.objects: tuple[int, ...] = (1,)
        self.images: list[np.ndarray] = []
        self.masks: list[Any] = []

    def step(self, image: np.ndarray, mask: Any = None, *, objects: Any = None, last: bool = False) -> np.ndarray:
        self.images.append(image)
        self.masks.append((mask, objects, last))
        red = image[..., 0] * (1 if self.size is None else 0.5)
        return np.stack([1 - red, red]).astype(np.float32)


def noted(fakes: list[Fake]) -> Any:
    """Makes fakes and remembers them."""

    def make(size: int | None) -> Fake:
        fakes.append(Fake(size))
        return fakes[-1]

    return make


def test_views_when_flipped_then_every_size_twice_and_a_size_given_twice_is_refused() -> None:
    assert views([480, 600]) == (View(480), View(600))
    assert views([480, None], flip=True) == (View(480), View(None), View(480, True), View(None, True))
    for sizes in ([], [480, 480]):
        with pytest.raises(UsageError, match="once"):
            views(sizes)


def test_ensemble_when_one_view_is_mirrored_then_pixels_come_back_to_their_place() -> None:
    fakes: list[Fake] = []
    ensemble = Ensemble(views([None], flip=True), noted(fakes))
    image, labels = scene(0), box()
    out = ensemble.step(image, labels, objects=[1, 4], last=True)
    assert np.array_equal(out[1], image[..., 0]), "both views say the same of every pixel"
    assert np.array_equal(fakes[1].images[0], image[:, ::-1])
    mask, objects, last = fakes[1].masks[0]
    assert np.array_equal(mask, labels[:, ::-1]) and objects == [1, 4] and last


def test_ensemble_when_views_disagree_then_the_mean_of_them() -> None:
    ensemble = Ensemble(views([None, 24]), Fake)
    image = scene(1)
    assert np.allclose(ensemble.step(image)[1], image[..., 0] * 0.75)


def test_ensemble_when_a_size_is_above_the_picture_then_it_is_enlarged_and_brought_back() -> None:
    fakes: list[Fake] = []
    ensemble = Ensemble([View(96)], noted(fakes))
    out = ensemble.step(scene(0), box(), objects=[1, 4])
    assert fakes[0].images[0].shape == (96, 128, 3) and out.shape == (2, 48, 64)
    assert np.allclose(out[1], scene(0)[..., 0] * 0.5, atol=0.02)
    coverage, objects, _ = fakes[0].masks[0]
    assert coverage.shape == (2, 96, 128) and objects == [1, 4]
    assert coverage[0].sum() == pytest.approx(4 * (box() == 1).sum())
    assert coverage[1].sum() == pytest.approx(4 * (box() == 4).sum())


def test_ensemble_when_real_sessions_then_the_mean_of_what_each_delivers() -> None:
    tiny = tiny_model()
    frames = [scene(t) for t in range(4)]
    ensemble = Ensemble(views([32, None], flip=True), lambda size: Session(tiny, size=size, mem_every=2))
    alone = [Session(tiny, size=size, mem_every=2) for size in (32, None, 32, None)]
    for t, frame in enumerate(frames):
        given: dict[str, Any] = {"objects": (1, 4)} if t == 0 else {}
        mask = box() if t == 0 else None
        together = ensemble.step(frame, mask, **given, last=t == 3)
        straight = [s.step(frame, mask, **given, last=t == 3) for s in alone[:2]]
        flipped = None if mask is None else mask[:, ::-1]
        mirrored = [s.step(frame[:, ::-1], flipped, **given, last=t == 3)[..., ::-1] for s in alone[2:]]
        assert np.allclose(together, np.mean([*straight, *mirrored], axis=0), atol=1e-6)
        assert np.allclose(together.sum(0), 1, atol=1e-5)
    assert ensemble.objects == (1, 4)


def test_ensemble_when_a_mask_names_no_objects_then_usage_error() -> None:
    with pytest.raises(UsageError, match="ids"):
        Ensemble(views([None]), Fake).step(scene(0), box())
