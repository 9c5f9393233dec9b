"""Coverage against areas known on paper, and against counting points."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_curves import circle, corners, two_objects
from hypothesis import given, settings
from hypothesis import strategies as st

from rotomem.splines.raster import coverage, rasterise, winding
from rotomem.splines.types import Curve, Shape, SplineError, flatten, signed_area
from rotomem.types import Window

CANVAS = Window(0, 0, 64, 48)


def inside(polygon: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How often a polygon runs clockwise around points: the edges that a ray to the right meets, counted."""
    total = np.zeros(x.shape, int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        up, down = (y0 <= y) & (y < y1), (y1 <= y) & (y < y0)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        total += (down & (at > x)).astype(int) - (up & (at > x)).astype(int)
    return total


def test_coverage_when_circle_then_its_area() -> None:
    covered = coverage(circle(30.3, 22.7, 15.2), CANVAS)
    assert covered.sum() == pytest.approx(np.pi * 15.2**2, rel=5e-4)
    assert covered.max() == 1 and covered.min() == 0


@pytest.mark.parametrize("edge", [20.0, 20.25, 20.999, -3.0, 64.0])
def test_coverage_when_half_plane_then_every_pixel_to_the_last_digit(edge: float) -> None:
    covered = coverage(corners((-1e4, -1e4), (edge, -1e4), (edge, 1e4), (-1e4, 1e4)), CANVAS)
    expected = np.clip(edge - np.arange(64), 0, 1)
    np.testing.assert_allclose(covered, np.broadcast_to(expected, covered.shape), atol=1e-9)


@given(
    radii=st.lists(st.floats(2, 20), min_size=3, max_size=9),
    dx=st.integers(-5, 5),
    dy=st.integers(-5, 5),
    reach=st.floats(0, 0.4),
)
@settings(max_examples=30, deadline=None)
def test_coverage_when_any_star_then_its_area_and_it_moves_with_the_curve(
    radii: list[float], dx: int, dy: int, reach: float
) -> None:
    angle = np.arange(len(radii)) * 2 * np.pi / len(radii)
    place = np.array(radii)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + (32, 24)
    along = reach * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    curve = Curve(np.stack([place - along, place, place + along], axis=1))
    covered = coverage(curve, CANVAS)
    assert covered.sum() == pytest.approx(signed_area(flatten(curve.points)), abs=1e-6)
    moved = coverage(Curve(curve.points + np.array([dx, dy])), CANVAS)
    np.testing.assert_allclose(moved[6:-6, 6:-6], np.roll(covered, (dy, dx), (0, 1))[6:-6, 6:-6], atol=1e-9)


def test_coverage_when_slanted_then_triangles_under_the_line() -> None:
    covered = coverage(corners((0, 0), (8, 4), (0, 4)), Window(0, 0, 8, 4))
    np.testing.assert_allclose(covered[0], [0.75, 0.25, 0, 0, 0, 0, 0, 0], atol=1e-12)
    assert covered.sum() == pytest.approx(16)


@pytest.mark.parametrize("seed", range(4))
def test_winding_when_random_polygon_then_as_16_by_16_points_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygon = rng.uniform(-20, 70, (7, 2))
    fine = (np.arange(16) + 0.5) / 16
    window = Window(-3, 2, 29, 26)
    x = (window.x0 + np.arange(window.width)[:, None] + fine).ravel()
    y = (window.y0 + np.arange(window.height)[:, None] + fine).ravel()
    counted = inside(polygon, *np.meshgrid(x, y)).reshape(window.height, 16, window.width, 16).mean((1, 3))
    # Along one edge the grid of points is wrong by up to 1/16 of a pixel; a corner in the pixel has two.
    np.testing.assert_allclose(winding(polygon, window), counted, atol=0.13)
    assert abs(winding(polygon, window) - counted).mean() < 2e-3


def test_coverage_when_the_window_is_elsewhere_then_the_same_pixels() -> None:
    whole = coverage(circle(30, 20, 25), Window(-10, -10, 70, 60))
    part = Window(20, -10, 40, 12)
    np.testing.assert_allclose(coverage(circle(30, 20, 25), part), whole[part.slices_in(Window(-10, -10, 70, 60))])
    assert not coverage(circle(30, 20, 25), Window(200, 200, 210, 210)).any()


def test_coverage_when_drawn_the_other_way_round_or_twice_over_then_still_one() -> None:
    there = circle(30, 20, 12)
    back = Curve(there.points[::-1, ::-1])
    np.testing.assert_allclose(coverage(back, CANVAS), coverage(there, CANVAS), atol=1e-12)
    twice = Curve(np.concatenate([there.points, there.points]))
    whole = coverage(there, CANVAS) == 1
    assert whole.sum() > 300 and (coverage(twice, CANVAS)[whole] == 1).all()


@pytest.mark.parametrize("turned", [False, True])
def test_coverage_when_feathered_then_falls_evenly_outward(turned: bool) -> None:
    curve = circle(32, 24, 12, feather=8)
    if turned:
        curve = Curve(curve.points[::-1, ::-1], curve.feather)
    ramp = coverage(curve, CANVAS)[23:25, 40:56].mean(axis=0)
    expected = np.clip(1 - (np.arange(40.5, 56) - 44) / 8, 0, 1)
    np.testing.assert_allclose(ramp, expected, atol=0.02)
    # As wide on the diagonals, between the points: the cone's volume.
    volume = np.pi * (12**2 + 12 * 20 + 20**2) / 3
    assert coverage(curve, CANVAS.union(Window(0, 0, 64, 60))).sum() == pytest.approx(volume, rel=2e-3)


def test_feather_when_uneven_then_each_side_has_its_own() -> None:
    curve = Curve(circle(32, 24, 10).points, np.array([8.0, 0, 0, 0]))
    row = coverage(curve, CANVAS)[24]
    assert row[46] == pytest.approx(0.45, abs=0.05) and row[21] == 0 and row[23] == pytest.approx(1, abs=0.05)


def test_rasterise_when_holes_and_islands_then_in_their_order() -> None:
    shapes = [
        Shape("out", {1: circle(30, 24, 20)}),
        Shape("hole", {1: circle(30, 24, 12)}, subtract=True),
        Shape("island", {1: circle(30, 24, 5)}),
    ]
    total = float(rasterise(shapes, 1, CANVAS).sum())
    assert total == pytest.approx(np.pi * (400 - 144 + 25), rel=1e-3)


def test_shape_when_between_keys_then_linear_and_outside_of_its_span_gone() -> None:
    body = two_objects(feather=4).objects["hero"][0]
    between = body.at(1003)
    assert between is not None
    np.testing.assert_allclose(between.points, (body.keys[1001].points + body.keys[1005].points) / 2)
    np.testing.assert_allclose(between.feather, 3)
    held = body.at(1008)
    assert held is not None and np.array_equal(held.points, body.keys[1005].points)
    assert body.at(1000) is None and body.at(1009) is None


def test_key_frames_when_some_lie_outside_of_the_span_then_those_are_none() -> None:
    splines = two_objects()
    assert splines.key_frames("hero") == (1001, 1005)


@pytest.mark.parametrize(
    "points", [np.zeros((1, 3, 2)), np.zeros((4, 2)), np.full((3, 3, 2), np.nan), np.full((3, 3, 2), np.inf)]
)
def test_curve_when_impossible_then_said_so(points: np.ndarray) -> None:
    with pytest.raises(SplineError, match="a curve has"):
        Curve(points)


def test_shape_when_keys_differ_in_points_then_refused() -> None:
    with pytest.raises(SplineError, match="3, 4 points"):
        Shape("s", {1: circle(0, 0, 1), 2: corners((0, 0), (1, 0), (0, 1))})


def test_flatten_when_circle_then_within_tolerance() -> None:
    polygon = flatten(circle(0, 0, 500).points, tolerance=0.01)
    edge = (polygon + np.roll(polygon, -1, axis=0)) / 2
    assert (500 - np.hypot(*edge.T)).max() < 0.01 and np.hypot(*polygon.T).max() < 500 * 1.0003
    assert signed_area(polygon) > 0


def test_normals_when_handles_lie_on_their_points_then_bisectors() -> None:
    square = corners((0, 0), (10, 0), (10, 10), (0, 10))
    np.testing.assert_allclose(square.normals(), np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / np.sqrt(2))
