"""Errors of soft mattes with trackers whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rotomem.engine.session import Session
from rotomem.errors import InputError, ShapeError
from rotomem.evaluation.alpha import AlphaErrors, run_alpha, summarise_alpha
from rotomem.evaluation.alpha_clips import AlphaClip
from rotomem.evaluation.coarse import CoarseListener

from .test_alpha_clips import soft_box
from .test_davis import H, W
from .tiny import tiny_model


class Repeats:
    """A tracker that delivers, for each object, the first coverage it was given."""

    def __init__(self) -> None:
        self.objects: tuple[int, ...] = ()
        self.alphas: list[np.ndarray] = []
        self.last: list[bool] = []

    def step(self, image: Any, mask: Any = None, *, objects: Any = None, last: bool = False) -> np.ndarray:
        self.last.append(last)
        if mask is not None:
            assert mask.dtype == np.float32 and mask.shape == (len(objects), H, W)
            self.objects += tuple(objects)
            self.alphas += list(mask)
        rows = np.stack(self.alphas)
        return np.concatenate([1 - rows.sum(0, keepdims=True), rows])


def scene(t: int) -> np.ndarray:
    y, x = np.mgrid[0:H, 0:W].astype(np.float32) / 12
    return np.stack([0.5 + 0.4 * np.sin(x * (1 + c) + y * (2 - c) + 0.1 * t) for c in range(3)], -1)


def clip_of(*truth: np.ndarray | None, objects: tuple[str, ...] = ("object",), moving: bool = False) -> AlphaClip:
    pictures = [scene(t if moving else 0).astype(np.float32) for t in range(len(truth))]
    return AlphaClip("set", "clip", objects, len(truth), lambda: iter(zip(pictures, truth, strict=True)))


def test_run_alpha_when_the_edge_softens_then_errors_by_hand() -> None:
    key, softer = soft_box(4, 0.25)[None], soft_box(4, 0.75)[None]
    tracker = Repeats()
    score = run_alpha(clip_of(key, key, softer, softer), tracker)
    (one,) = score.objects
    assert tracker.last == [False, False, False, True]
    assert (one.name, one.key_frame, one.frames, score.size) == ("object", 0, 3, (W, H))
    # a column of 16 pixels is half a coverage off on two of three frames
    assert one.matte.sad == pytest.approx(16 * 0.5 / 1000 * 2 / 3)
    assert one.matte.mse == pytest.approx(16 * 0.25 / (H * W) * 2 / 3)
    # it comes once in three pairs: nothing, the step, nothing
    assert one.matte.dt_ssd == pytest.approx(100 * math.sqrt(16 * 0.25 / (H * W)) / 3)
    assert one.matte.messd_dt == pytest.approx(1000 * 16 * 0.25 / (H * W) / 3, rel=1e-3)
    assert one.matte.gradient > 0 and one.matte.connectivity >= 0
    assert one.flicker == pytest.approx(0, abs=1e-6) and one.truth_flicker > 0.01
    assert one.j == pytest.approx((1 + 2 * 16 / 17) / 3)
    assert one.bicubic is None and score.cost.steps == 4


def test_run_alpha_when_an_object_comes_late_then_its_key_is_the_first_matte_that_shows_it() -> None:
    nothing, faint = np.zeros((H, W), np.float32), soft_box(30) * 0.3
    pair = lambda b: np.stack([soft_box(4), b])  # noqa: E731
    clip = clip_of(pair(nothing), pair(faint), pair(soft_box(30)), None, pair(soft_box(30)), objects=("a", "b"))
    a, b = run_alpha(clip, Repeats()).objects
    assert (a.key_frame, a.frames, b.key_frame, b.frames) == (0, 3, 2, 1)
    assert a.matte.sad == b.matte.sad == 0 and b.j == 1
    assert math.isnan(b.matte.dt_ssd), "the frame before the one that counts has no matte"
    assert a.matte.dt_ssd == 0


def test_run_alpha_when_limited_then_the_last_of_those_frames_is_last() -> None:
    tracker = Repeats()
    score = run_alpha(clip_of(*[soft_box(4)[None]] * 5), tracker, limit=3)
    assert tracker.last == [False, False, True] and score.frames == 3


def test_run_alpha_when_nothing_shows_or_sizes_differ_then_errors_name_the_clip() -> None:
    with pytest.raises(InputError, match="clip shows an object"):
        run_alpha(clip_of(np.zeros((1, H, W), np.float32)), Repeats())
    with pytest.raises(ShapeError, match=r"sequence=clip frame=0"):
        run_alpha(clip_of(np.zeros((1, H, W + 1), np.float32)), Repeats())


def test_summarise_alpha_when_objects_differ_then_every_one_weighs_the_same() -> None:
    exact = run_alpha(clip_of(*[np.stack([soft_box(4), soft_box(30)])] * 3, objects=("a", "b")), Repeats())
    off = run_alpha(clip_of(soft_box(4, 0)[None], soft_box(4, 1)[None]), Repeats())
    summary = summarise_alpha([exact, off])
    assert summary.objects == 3 and summary.bicubic is None
    assert summary.matte.sad == pytest.approx(16 / 1000 / 3)
    empty = summarise_alpha([])
    assert empty.objects == 0 and math.isnan(empty.matte.sad)


@pytest.mark.parametrize("size", (None, 32))
def test_coarse_listener_when_a_session_runs_then_its_raster_enlarged_is_close_to_what_it_delivers(
    size: int | None,
) -> None:
    model = tiny_model()
    session = Session(model, size=size)
    with CoarseListener(model, size) as coarse:
        session.step(scene(0), soft_box(4)[None], objects=(1,))
        assert coarse.enlarged(H, W) is None, "the decoder does not run where all is drawn"
        delivered = session.step(scene(1))
        enlarged = coarse.enlarged(H, W)
        assert enlarged is not None and enlarged.shape == delivered.shape and enlarged.dtype == np.float32
        assert 0 <= enlarged.min() <= enlarged.max() <= 1
        assert not np.array_equal(enlarged, delivered) and delivered[1].std() > 0.1
        assert np.corrcoef(enlarged[1].ravel(), delivered[1].ravel())[0, 1] > 0.97
        assert coarse.enlarged(H, W) is None, "a frame is given once"
    assert "decode" not in model.__dict__


def test_coarse_listener_when_the_model_does_not_tell_or_decodes_in_passes_then_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    decode = model.decode
    session = Session(model, size=None)
    session.step(scene(0), soft_box(4)[None], objects=(1,))
    with monkeypatch.context() as silent:
        silent.setattr(model, "decode", lambda *a, **k: replace(decode(*a, **k), coarse=None))
        with CoarseListener(model, None) as coarse:
            session.step(scene(1))
            assert coarse.enlarged(H, W) is None
    with CoarseListener(model, None) as coarse:
        session.step(scene(2))
        session.step(scene(3))
        assert coarse.enlarged(H, W) is None, "two answers to one question"
        session.step(scene(4))
        assert coarse.enlarged(H, W) is not None


def test_run_alpha_when_listened_to_then_the_bicubic_enlargement_is_measured_beside() -> None:
    model = tiny_model()
    truth = [soft_box(4 + t)[None] for t in range(4)]
    with CoarseListener(model, None) as coarse:
        score = run_alpha(clip_of(*truth, moving=True), Session(model, size=None), coarse=coarse)
    (one,) = score.objects
    assert one.bicubic is not None
    figures = (one.matte, one.bicubic)
    assert all(math.isfinite(v) for errors in figures for v in errors.as_dict().values())
    assert one.matte != one.bicubic and one.matte.sad == pytest.approx(one.bicubic.sad, rel=0.2)
    assert isinstance(summarise_alpha([score]).bicubic, AlphaErrors)


def test_run_alpha_when_read_from_files_then_the_same_as_from_memory(tmp_path: Path) -> None:
    from rotomem.evaluation.alpha_clips import find_alpha_clips

    from .test_alpha_clips import alpha_set

    truth = [soft_box(4, 0.25), soft_box(4, 0.75)]
    alpha_set(tmp_path, "s", [{"A": a} for a in truth])
    (clip,) = find_alpha_clips(tmp_path)
    (read,) = run_alpha(clip, Repeats()).objects
    (held,) = run_alpha(clip_of(*[a[None] for a in truth]), Repeats()).objects
    assert read.matte.sad == held.matte.sad and read.matte.gradient == held.matte.gradient
