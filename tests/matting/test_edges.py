import numpy as np
import pytest

from rotomem.matting.edges import choke, despeckle, feather, fill_holes


def disc(radius=60.3, size=200, wide=1.0):
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - (size - 1) / 2
    return np.clip(radius - np.hypot(y, x * wide) + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize("pixels", [0.3, 1.0, 2.7, -0.5, -3.25])
def test_choke_when_edge_is_straight_then_it_moves_by_that_much(pixels):
    alpha = np.zeros((150, 200), np.float32)
    alpha[:, :90], alpha[:, 90] = 1, 0.4
    moved = choke(alpha, pixels)
    np.testing.assert_allclose(moved.sum(1), 90.4 - pixels, atol=2e-3)
    np.testing.assert_allclose(choke(alpha.T.copy(), pixels), moved.T, atol=1e-6)


@pytest.mark.parametrize("pixels", [0.5, 2.0, 5.5, -4.0])
def test_choke_when_edge_runs_in_all_directions_then_the_radius_changes_by_that_much(pixels):
    radius = np.sqrt(choke(disc(), pixels).sum() / np.pi)
    assert radius == pytest.approx(60.3 - pixels, abs=0.06 * abs(pixels) + 0.02)


def test_choke_when_pixels_are_wide_then_fewer_of_them_are_taken_along_a_row():
    alpha = np.zeros((200, 200), np.float32)
    alpha[50:150, 50:150] = 1
    moved = choke(alpha, 4.0, pixel_aspect=2.0)
    assert moved[100].sum() == pytest.approx(100 - 2 * 2, abs=0.01)
    assert moved[:, 100].sum() == pytest.approx(100 - 2 * 4, abs=0.01)


def test_choke_when_object_leaves_the_picture_then_it_is_not_choked_there():
    alpha = np.zeros((100, 130), np.float32)
    alpha[40:] = 1
    moved = choke(alpha, 3.0)
    assert (moved[43:] == 1).all() and (moved[:40] == 0).all()


def test_choke_when_a_picture_is_larger_than_a_box_then_boxes_leave_no_trace():
    alpha = disc(150.7, 400)
    whole = choke(alpha, 3.5)
    cut = choke(np.ascontiguousarray(alpha[30:, 17:]), 3.5)
    np.testing.assert_array_equal(cut[10:, 10:], whole[40:, 27:])


def test_feather_when_edge_is_hard_then_it_becomes_a_ramp_of_that_width():
    alpha = np.zeros((40, 200), np.float32)
    alpha[:, :100] = 1
    soft = feather(alpha, 8.0)[20]
    assert soft.sum() == pytest.approx(100, abs=1e-3)
    assert soft[100 - 9] > 0.97 and soft[100 + 8] < 0.03
    assert soft[97] == pytest.approx(0.734, abs=0.01)  # 2.5 pixels inside, sigma 4
    assert (np.diff(soft) <= 1e-6).all()


def test_feather_when_tiny_then_hardly_anything_changes():
    alpha = disc()
    assert 0 < np.abs(feather(alpha, 0.2) - alpha).max() < 0.05


def test_feather_when_pixels_are_wide_then_the_ramp_is_narrower_along_a_row():
    alpha = np.zeros((128, 128), np.float32)
    alpha[:64] = 1
    np.testing.assert_allclose(feather(alpha, 6.0)[:, 5], feather(alpha.T.copy(), 12.0, 2.0)[5], atol=1e-6)


def test_despeckle_when_islands_are_small_then_they_go_with_their_fringe():
    alpha = np.zeros((60, 60), np.float32)
    alpha[5:30, 5:30] = 1
    alpha[40:43, 40:43] = 0.7
    alpha[39, 40] = 0.05
    alpha[50:58, 50:58] = 0.6
    clean = despeckle(alpha, 30)
    assert clean[36:46, 36:46].max() == 0
    np.testing.assert_array_equal(clean[:35], alpha[:35])
    assert (clean[50:58, 50:58] == np.float32(0.6)).all()


def test_despeckle_when_all_is_small_then_the_largest_stays():
    alpha = np.zeros((20, 20), np.float32)
    alpha[2:5, 2:5], alpha[10, 10] = 1, 1
    clean = despeckle(alpha, 1000)
    assert clean[2:5, 2:5].min() == 1 and clean[10, 10] == 0
    assert not despeckle(np.zeros((4, 4), np.float32), 9).any()


def test_fill_holes_when_small_then_closed_and_others_stay():
    alpha = np.ones((80, 80), np.float32)
    alpha[:, 60:] = 0
    alpha[10:13, 10:13] = 0.2
    alpha[30:45, 30:45] = 0
    alpha[0:2, 20:22] = 0  # open to the border: no hole
    closed = fill_holes(alpha, 20)
    assert closed[8:15, 8:15].min() == 1
    np.testing.assert_array_equal(closed[20:], alpha[20:])
    assert closed[0, 20] == 0
