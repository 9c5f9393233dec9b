"""Mattes to curves: outlines to a part of a pixel, points that stay on what they are on, few of them."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_curves import circle, corners

from rotomem.errors import UsageError
from rotomem.splines.contour import Outline, outlines
from rotomem.splines.fit import reduce_keys
from rotomem.splines.follow import match
from rotomem.splines.raster import coverage, rasterise
from rotomem.splines.trace import TraceOptions, Tracer
from rotomem.splines.types import Shape, signed_area
from rotomem.types import Window

CANVAS = Window(0, 0, 120, 90)


def square(x: float, y: float, size: float = 30) -> np.ndarray:
    return coverage(corners((x, y), (x + size, y), (x + size, y + size), (x, y + size)), CANVAS)


def traced(*mattes: np.ndarray, first: int = 1, **options: float) -> tuple[Shape, ...]:
    tracer = Tracer("hero", TraceOptions(**options))
    for frame, matte in enumerate(mattes, first):
        tracer.add(frame, matte)
    return tracer.shapes()


def overlap(shapes: tuple[Shape, ...], frame: int, matte: np.ndarray) -> float:
    mine, true = rasterise(shapes, frame, CANVAS) >= 0.5, matte >= 0.5
    return float((mine & true).sum() / (mine | true).sum())


# Outlines -----------------------------------------------------------------------------------------------------


def test_outlines_when_a_soft_disc_then_its_edge_to_a_tenth_of_a_pixel() -> None:
    (found,) = outlines(coverage(circle(50.3, 40.6, 20), CANVAS))
    radius = np.hypot(*(found - (50.3, 40.6)).T)
    assert abs(radius - 20).max() < 0.1
    assert signed_area(found) == pytest.approx(np.pi * 400, rel=2e-3)


def test_outlines_when_there_is_a_hole_then_it_runs_the_other_way() -> None:
    ring = coverage(circle(50, 40, 30), CANVAS) - coverage(circle(50, 40, 10), CANVAS)
    outer, inner = outlines(ring)
    assert signed_area(outer) > 0 > signed_area(inner)
    assert signed_area(inner) == pytest.approx(-np.pi * 100, rel=2e-2)


def test_outlines_when_cut_by_the_frame_then_along_its_border() -> None:
    (whole,) = outlines(np.ones((90, 120)))
    assert whole.min() == 0 and whole[:, 0].max() == 120 and whole[:, 1].max() == 90
    assert signed_area(whole) == pytest.approx(120 * 90, abs=1)


@pytest.mark.parametrize("seed", range(3))
def test_outlines_when_noise_then_closed_and_their_areas_add_up(seed: int) -> None:
    noise = np.random.default_rng(seed).random((23, 31))
    total = sum(signed_area(p) for p in outlines(noise))
    # Every crossing on a grid edge is in one outline, and none is lost: what they enclose is what is inside, roughly.
    assert total == pytest.approx((noise >= 0.5).sum(), rel=0.1)


def test_outlines_when_corners_touch_then_the_middle_decides() -> None:
    apart = np.zeros((6, 6))
    apart[1:3, 1:3] = apart[3:5, 3:5] = 0.7
    assert len(outlines(apart)) == 2
    joined = np.where(apart > 0, 1.0, 0.45)
    assert len(outlines(joined)) == 1


def test_outlines_when_small_or_nothing_then_left_out() -> None:
    speck = np.zeros((20, 20))
    speck[4:6, 4:6] = 1
    assert len(outlines(speck)) == 1 and outlines(speck, least_area=10) == []
    assert outlines(np.zeros((20, 20))) == []


def test_outline_when_walked_round_twice_then_the_same_places() -> None:
    outline = Outline(circle(0, 0, 10).points[:, 1])
    way = np.array([0.0, 3.0, 17.0])
    np.testing.assert_allclose(outline.at(way + 2 * outline.length), outline.at(way), atol=1e-9)


# Over time ----------------------------------------------------------------------------------------------------


def test_match_when_a_shape_moves_and_starts_elsewhere_then_corner_to_corner() -> None:
    before = Outline(np.array([(10.0, 10), (50, 10), (50, 30), (10, 30)]))
    after = Outline(np.array([(53.0, 34), (13, 34), (13, 14), (53, 14)]))
    places = before.at(np.arange(80) * before.length / 80)
    moved = after.at(match(places, after))
    assert np.hypot(*(moved - places - (3, 4)).T).max() < 1.5


def test_match_when_one_side_grows_then_the_others_stay() -> None:
    before = Outline(np.array([(10.0, 10), (50, 10), (50, 30), (10, 30)]))
    after = Outline(np.array([(10.0, 10), (60, 10), (60, 30), (10, 30)]))
    places = before.at(np.arange(120) * before.length / 120)
    moved = after.at(match(places, after)) - places
    left = places[:, 0] < 12
    assert np.hypot(*moved[left].T).mean() < 1 and moved[places[:, 0] > 49, 0].mean() == pytest.approx(10, abs=1.5)


def test_tracer_when_a_square_moves_then_its_corners_are_points_that_move_with_it() -> None:
    mattes = [square(20 + 3 * i, 20 + i) for i in range(8)]
    (shape,) = traced(*mattes)
    assert shape.span == (1, 8) and len(shape.keys) == 8 and 4 <= len(shape.keys[1]) <= 8
    for i, matte in enumerate(mattes):
        assert overlap((shape,), i + 1, matte) > 0.98
        points = shape.keys[i + 1].points[:, 1]
        for corner in ((0, 0), (30, 0), (30, 30), (0, 30)):
            there = np.array([corner[0] + 20 + 3 * i, corner[1] + 20 + i])
            nearest = np.hypot(*(points - there).T)
            assert nearest.min() < 1.5
            first = np.hypot(*(shape.keys[1].points[:, 1] - np.array(corner) - (20, 20)).T).argmin()
            assert nearest.argmin() == first, "the same point is on the corner all the time"


def test_tracer_when_a_disc_grows_then_few_points_within_tolerance() -> None:
    mattes = [coverage(circle(60.2, 45.4, 15 + 2 * i), CANVAS) for i in range(6)]
    (shape,) = traced(*mattes, tolerance=0.3)
    assert len(shape.keys[1]) <= 10
    for i, matte in enumerate(mattes):
        assert abs(rasterise([shape], i + 1, CANVAS) - matte).max() < 0.6
        assert overlap((shape,), i + 1, matte) > 0.985


def test_tracer_when_a_ring_then_its_hole_is_taken_away_above_it() -> None:
    ring = coverage(circle(50, 40, 30), CANVAS) - coverage(circle(50, 40, 12), CANVAS)
    island = coverage(circle(50, 40, 5), CANVAS)
    shapes = traced(ring + island, ring + island, ring + island)
    assert [s.subtract for s in shapes] == [False, True, False]
    assert [s.name for s in shapes] == ["hero_shape1", "hero_hole2", "hero_shape3"]
    assert overlap(shapes, 2, ring + island) > 0.98


def test_tracer_when_an_object_leaves_and_comes_back_then_two_spans() -> None:
    there, gone = square(40, 30), np.zeros((90, 120))
    shapes = traced(there, there, there, gone, there, there, there)
    assert sorted(s.span for s in shapes if s.span) == [(1, 3), (5, 7)]
    assert rasterise(shapes, 4, CANVAS).max() == 0


def test_tracer_when_frames_are_left_out_then_no_shape_reaches_over_the_gap() -> None:
    tracer = Tracer("hero")
    for frame in (1, 2, 3, 7, 8, 9):
        tracer.add(frame, square(40, 30))
    assert sorted(s.span for s in tracer.shapes() if s.span) == [(1, 3), (7, 9)]


def test_tracer_when_it_breaks_in_two_then_the_parts_are_shapes_of_their_own() -> None:
    halves = square(10, 30, 24) + square(70, 30, 24)
    bridge = halves.copy()
    bridge[38:46, 30:75] = 1
    shapes = traced(bridge, bridge, bridge, halves, halves, halves)
    for frame, matte in enumerate([bridge] * 3 + [halves] * 3, 1):
        assert overlap(shapes, frame, matte) > 0.97


def test_tracer_when_told_where_the_matte_lies_then_shifted() -> None:
    tracer = Tracer("hero")
    for frame in (1, 2, 3):
        tracer.add(frame, square(40, 30), origin=(-100, 50))
    points = tracer.shapes()[0].keys[2].points[:, 1]
    np.testing.assert_allclose(points.min(axis=0), (-60, 80), atol=1)


def test_tracer_when_specks_flash_then_none_of_them_is_a_shape() -> None:
    flash = square(20, 20) + square(100, 70, 7)
    assert len(traced(square(20, 20), flash, square(20, 20))) == 1
    assert len(traced(flash, flash, flash)) == 2


def test_reduce_keys_when_motion_is_even_then_two_keys_are_enough() -> None:
    curves = {f: corners((f, 0), (f + 20, 0), (f + 20, 20), (f, 20)) for f in range(1, 10)}
    assert list(reduce_keys(curves, 0.1)) == [1, 9]
    assert list(reduce_keys(curves, 0)) == list(curves)
    turned = {f: corners((abs(f - 5), 0), (20, 0), (20, 20), (0, 20)) for f in range(1, 10)}
    assert list(reduce_keys(turned, 0.1)) == [1, 5, 9]


def test_trace_options_when_out_of_range_then_refused() -> None:
    for wrong in ({"tolerance": 0.0}, {"key_tolerance": -1.0}, {"least_area": float("nan")}):
        with pytest.raises(UsageError, match="tolerance is"):
            TraceOptions(**wrong)


def test_tracer_when_the_object_is_small_then_fitted_closer_and_its_parts_kept() -> None:
    # A part there on one frame alone, below the least area: but a third of the object.
    body, part = square(40, 30, 6), square(60, 30, 4)
    shapes = traced(body, body + part, body)
    assert len(shapes) == 2
    for frame, matte in enumerate([body, body + part, body], 1):
        assert overlap(shapes, frame, matte) > 0.9
