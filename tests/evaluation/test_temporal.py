"""Measures of steadiness against answers known on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rotomem.errors import ShapeError
from rotomem.evaluation import temporal as t


def edge(at: int, h: int = 20, w: int = 30) -> np.ndarray:
    """The object left of column `at`."""
    alpha = np.zeros((h, w))
    alpha[:, :at] = 1
    return alpha


def motion(dx: float, dy: float = 0, h: int = 20, w: int = 30) -> np.ndarray:
    return np.full((h, w, 2), (dx, dy), np.float32)


def test_dt_ssd_when_the_error_stays_then_zero_and_when_it_comes_then_its_size() -> None:
    truth = np.zeros((4, 5))
    wrong = truth + 0.3
    assert t.dt_ssd(wrong, wrong, truth, truth) == 0
    one = truth.copy()
    one[1, 2] = 0.5
    # one of twenty pixels changes by half more than it should: 100 sqrt(0.25 / 20)
    assert t.dt_ssd(truth, one, truth, truth) == pytest.approx(100 * math.sqrt(0.0125))


def test_dt_ssd_when_the_truth_changes_alike_then_zero() -> None:
    # the truth gains columns 8 to 11, the matte 10 to 13: four of thirty differ
    assert t.dt_ssd(edge(10), edge(14), edge(8), edge(12)) == pytest.approx(100 * math.sqrt(4 / 30))
    assert t.dt_ssd(edge(10), edge(14), edge(10), edge(14)) == 0


def test_messd_dt_when_the_error_travels_with_the_object_then_zero_else_its_square() -> None:
    # the matte misses the truth by two columns, before and after a move by four
    arguments = (edge(10), edge(14), edge(12), edge(16))
    assert t.messd_dt(*arguments, motion(4)) == 0
    # unmoved, the errors of both frames are compared where they stand: 2 + 2 of 30 columns change by 1
    assert t.messd_dt(*arguments, motion(0)) == pytest.approx(1000 * 4 / 30)


def test_messd_dt_when_half_an_error_appears_then_a_quarter_and_what_leaves_does_not_count() -> None:
    truth = np.zeros((4, 10))
    after = truth.copy()
    after[:, 9] = 0.5
    assert t.messd_dt(truth, after, truth, truth, motion(0, h=4, w=10)) == pytest.approx(1000 * 0.25 / 10)
    # eight columns stay in the picture, one of them is led to the error
    assert t.messd_dt(truth, after, truth, truth, motion(2, h=4, w=10)) == pytest.approx(1000 * 0.25 / 8)
    assert t.messd_dt(truth, after, truth, truth, motion(50, h=4, w=10)) == 0


def test_flicker_when_the_edge_goes_with_the_picture_then_zero_else_pixels() -> None:
    assert t.flicker(edge(10), edge(12), motion(2)) == 0
    assert t.flicker(edge(10), edge(12), motion(0)) == pytest.approx(2)
    assert t.flicker(edge(12), edge(10), motion(2)) == pytest.approx(4)


def test_flicker_when_softness_changes_then_the_coverage_that_came() -> None:
    soft = edge(10)
    soft[:, 10] = 0.4
    assert t.flicker(edge(10), soft, motion(0)) == pytest.approx(0.4)


def test_flicker_when_the_object_vanishes_then_its_area_over_its_contour_and_without_any_then_nan() -> None:
    assert t.flicker(edge(10), edge(0), motion(0)) == pytest.approx(10)
    assert t.flicker(edge(0), edge(10), motion(0)) == pytest.approx(10)
    assert math.isnan(t.flicker(edge(0), edge(0), motion(0)))


def test_flicker_when_motion_is_unknown_somewhere_then_that_counts_for_nothing() -> None:
    known = np.ones((20, 30), bool)
    known[:10] = False
    jumped = edge(10)
    jumped[:10, 10:20] = 1
    assert t.flicker(edge(10), jumped, motion(0), known) == 0
    # 10 x 10 pixels come; the longer contour has 20 pixels down and 10 across
    assert t.flicker(edge(10), jumped, motion(0)) == pytest.approx(100 / 30)
    assert math.isnan(t.flicker(edge(10), jumped, motion(0), known & False))


def test_warp_when_motion_is_fractional_then_bilinear_and_outside_is_told() -> None:
    ramp = np.tile(np.arange(30.0), (20, 1)) + 100 * np.arange(20.0)[:, None]
    moved, inside = t.warp(ramp, motion(0.75, 2.75))
    assert np.allclose(moved[:17, :29], ramp[:17, :29] + 0.75 + 275)
    assert inside[:17, :29].all() and not inside[17:].any() and not inside[:, 29].any()


def test_measures_when_shapes_differ_then_shape_error() -> None:
    with pytest.raises(ShapeError, match="one size"):
        t.dt_ssd(edge(3), edge(3), edge(3), edge(3, w=31))
    with pytest.raises(ShapeError, match="motion"):
        t.flicker(edge(3), edge(3), motion(0, w=31))
