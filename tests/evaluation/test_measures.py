"""Measures against answers worked out on paper, and against brute force on random masks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rotomem.errors import ShapeError
from rotomem.evaluation import measures as m


def square(h: int, w: int, y: int, x: int, size: int) -> np.ndarray:
    out = np.zeros((h, w), bool)
    out[y : y + size, x : x + size] = True
    return out


def test_region_similarity_when_squares_overlap_by_half_then_one_third() -> None:
    a, b = square(10, 10, 2, 2, 4), square(10, 10, 2, 4, 4)
    assert m.region_similarity(a, b) == pytest.approx(8 / 24)


def test_region_similarity_when_both_empty_then_one_and_when_one_empty_then_zero() -> None:
    nothing, something = np.zeros((5, 5)), square(5, 5, 1, 1, 2)
    assert m.region_similarity(nothing, nothing) == 1.0
    assert m.region_similarity(something, nothing) == 0.0
    assert m.region_similarity(nothing, something) == 0.0


def test_region_similarity_when_void_covers_the_difference_then_one() -> None:
    a, b = square(10, 10, 2, 2, 4), square(10, 10, 2, 4, 4)
    assert m.region_similarity(a, b, void=a ^ b) == 1.0


def test_boundary_when_one_pixel_then_it_and_its_three_upper_left_neighbours() -> None:
    edge = m.boundary(square(6, 6, 2, 3, 1))
    assert sorted(zip(*np.nonzero(edge), strict=True)) == [(1, 2), (1, 3), (2, 2), (2, 3)]


def test_boundary_when_mask_touches_the_lower_right_border_then_the_border_is_no_edge() -> None:
    edge = m.boundary(square(4, 4, 2, 2, 2))
    assert sorted(zip(*np.nonzero(edge), strict=True)) == [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    assert not m.boundary(np.ones((4, 4))).any()


def test_dilate_disc_when_random_masks_then_equals_euclidean_distance() -> None:
    rng = np.random.default_rng(1)
    for radius in (0, 1, 3, 8, 30):
        mask = rng.random((23, 17)) < 0.02
        yx = np.argwhere(mask)
        gy, gx = np.mgrid[:23, :17]
        near = np.zeros_like(mask)
        for y, x in yx:
            near |= (gy - y) ** 2 + (gx - x) ** 2 <= radius**2
        assert np.array_equal(m.dilate_disc(mask, radius), near), radius


def test_boundary_accuracy_when_shift_is_within_or_beyond_the_tolerance() -> None:
    # 60 x 80: diagonal 100, tolerance ceil(0.8) = 1 pixel
    truth = np.zeros((60, 80), bool)
    truth[:, 40:] = True
    for shift, expected in ((0, 1.0), (1, 1.0), (2, 0.0)):
        pred = np.zeros_like(truth)
        pred[:, 40 + shift :] = True
        assert m.boundary_accuracy(pred, truth) == expected


def test_boundary_accuracy_when_half_of_the_prediction_is_false_then_two_thirds() -> None:
    # truth is one vertical edge of 60 pixels; the prediction has it and another one far away:
    # precision 1/2, recall 1, F = 2/3
    truth = np.zeros((60, 80), bool)
    truth[:, :20] = True
    pred = truth.copy()
    pred[:, 50:] = True
    assert m.boundary_accuracy(pred, truth) == pytest.approx(2 / 3)


def test_boundary_accuracy_when_empty_then_davis_conventions() -> None:
    nothing, something = np.zeros((20, 20)), square(20, 20, 5, 5, 4)
    assert m.boundary_accuracy(nothing, nothing) == 1.0
    assert m.boundary_accuracy(something, nothing) == 0.0
    assert m.boundary_accuracy(nothing, something) == 0.0


def test_boundary_accuracy_when_480p_then_tolerance_is_eight_pixels() -> None:
    # 854 x 480: 0.008 * 979.7 = 7.84, rounded up
    truth = np.zeros((480, 854), bool)
    truth[:, 400:] = True
    for shift, expected in ((8, 1.0), (9, 0.0)):
        assert m.boundary_accuracy(np.roll(truth, shift, 1) & (np.arange(854) >= 400), truth) == expected


def test_statistics_when_values_fall_then_mean_recall_decay() -> None:
    # nine frames: bounds round(linspace(1, 9, 5)) = 1 3 5 7 9, so the first quarter is frames 1..3, the last 7..9
    values = [0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1]
    s = m.statistics(values)
    assert s.mean == pytest.approx(sum(values) / 9)
    assert s.recall == pytest.approx(6 / 9)  # 0.5 itself is not recalled
    assert s.decay == pytest.approx(0.9 - 0.3)


def test_statistics_when_more_than_256_frames_then_the_last_quarter_is_the_last() -> None:
    values = np.r_[np.ones(300), np.zeros(300)]
    assert m.statistics(values).decay == 1.0


def test_statistics_when_no_frames_then_nan() -> None:
    assert math.isnan(m.statistics([]).mean)


def test_sad_and_mse_when_ten_pixels_differ_by_half() -> None:
    truth = np.zeros((20, 50))
    pred = truth.copy()
    pred[3, :10] = 0.5
    assert m.sad(pred, truth) == pytest.approx(0.005)
    assert m.mse(pred, truth) == pytest.approx(10 * 0.25 / 1000)
    region = np.zeros((20, 50), bool)
    region[3, :20] = True
    assert m.mse(pred, truth, region) == pytest.approx(10 * 0.25 / 20)
    assert m.mse(pred, truth, ~np.ones_like(region)) == 0.0


def test_gradient_error_when_a_ramp_meets_flat_then_the_filter_response_squared() -> None:
    # away from the borders a ramp of slope s answers s * sum(t * derive) * sum(smooth), everywhere the same
    sigma, half = 1.4, 4
    t = np.arange(-half, half + 1)
    g = np.exp(-(t**2) / (2 * sigma**2))
    smooth, derive = g / np.linalg.norm(g), t * g / np.linalg.norm(t * g)
    response = 0.01 * (t * derive).sum() * smooth.sum()
    ramp = np.tile(np.arange(60) * 0.01, (40, 1))
    region = np.zeros((40, 60), bool)
    region[10:30, 10:50] = True
    assert m.gradient_error(ramp, np.zeros_like(ramp), region) == pytest.approx(800 * response**2 / 1000)
    assert m.gradient_error(ramp.T, np.zeros_like(ramp.T), region.T) == pytest.approx(800 * response**2 / 1000)


def test_connectivity_error_when_an_island_is_loose_then_its_coverage() -> None:
    truth = np.zeros((30, 30))
    truth[5:15, 5:15] = 1
    pred = truth.copy()
    pred[20:22, 20:25] = 0.8  # ten pixels joined to nothing: level 0, loose by 0.8
    assert m.connectivity_error(pred, truth) == pytest.approx(10 * 0.8 / 1000)
    assert m.connectivity_error(truth, truth) == 0


def test_connectivity_error_when_difference_is_below_theta_then_zero() -> None:
    truth = np.zeros((30, 30))
    truth[5:15, 5:15] = 1
    pred = truth.copy()
    pred[20:22, 20:25] = 0.14
    assert m.connectivity_error(pred, truth) == 0


def test_largest_component_when_random_masks_then_equals_flood_fill() -> None:
    rng = np.random.default_rng(3)
    for density in (0.3, 0.55, 0.6, 0.8):
        mask = rng.random((31, 27)) < density
        best: set[tuple[int, int]] = set()
        todo = {(int(y), int(x)) for y, x in np.argwhere(mask)}
        while todo:
            stack, part = [todo.pop()], set()
            while stack:
                y, x = stack.pop()
                part.add((y, x))
                for n in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                    if n in todo:
                        todo.discard(n)
                        stack.append(n)
            if len(part) > len(best):
                best = part
        got = {(int(y), int(x)) for y, x in np.argwhere(m.largest_component(mask))}
        assert len(got) == len(best)
        assert got <= {(int(y), int(x)) for y, x in np.argwhere(mask)}
        if density in (0.6, 0.8):
            assert got == best
    assert not m.largest_component(np.zeros((4, 4), bool)).any()


def test_largest_component_when_a_spiral_then_one_part() -> None:
    mask = np.zeros((41, 41), bool)
    y, x, dy, dx, n = 0, 0, 0, 1, 40
    mask[0, 0] = True
    for length in [n, *[k for j in range(n, 0, -2) for k in (j, j)]]:
        for _ in range(length):
            y, x = y + dy, x + dx
            if not (0 <= y < 41 and 0 <= x < 41):
                break
            mask[y, x] = True
        y, x = min(max(y, 0), 40), min(max(x, 0), 40)
        dy, dx = dx, -dy
    assert np.array_equal(m.largest_component(mask), mask)


def test_measures_when_sizes_differ_then_shape_error_names_both() -> None:
    with pytest.raises(ShapeError, match=r"\[4, 5\].*\[5, 4\]"):
        m.region_similarity(np.zeros((4, 5)), np.zeros((5, 4)))
    with pytest.raises(ShapeError, match="region"):
        m.sad(np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((3, 3)))
