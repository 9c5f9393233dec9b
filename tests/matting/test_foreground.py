import numpy as np
import pytest

from rotomem.errors import ShapeError
from rotomem.evaluation.alpha_shots import KINDS, alpha_shot
from rotomem.matting.foreground import estimate_foreground


@pytest.mark.parametrize("kind", KINDS)
def test_estimate_foreground_when_put_over_another_background_then_less_of_the_old_one_shows(kind):
    frame = next(alpha_shot(kind, height=240, width=320, frames=1))
    soft = (frame.alpha > 0.02) & (frame.alpha < 0.98)
    behind = (1 - frame.alpha[..., None]) * np.array([0.02, 0.3, 0.05], np.float32)
    truth = frame.foreground + behind
    straight = estimate_foreground(frame.plate, frame.alpha)
    errors = [np.abs(frame.alpha[..., None] * c + behind - truth)[soft].mean() for c in (frame.plate, straight)]
    assert errors[1] < 0.55 * errors[0]


def test_estimate_foreground_when_alpha_is_whole_then_the_plate_is_untouched():
    rng = np.random.default_rng(0)
    plate = rng.normal(0.3, 0.5, (40, 60, 3)).astype(np.float32)
    alpha = np.zeros((40, 60), np.float32)
    alpha[10:20, 10:30] = 1
    np.testing.assert_array_equal(estimate_foreground(plate, alpha), plate)
    alpha[20, 10:30] = 0.5
    straight = estimate_foreground(plate, alpha)
    whole = np.ones(alpha.shape, bool)
    whole[20, 10:30] = False
    np.testing.assert_array_equal(straight[whole], plate[whole])
    assert (straight[20, 10:30] != plate[20, 10:30]).any()


def test_estimate_foreground_when_two_flat_colours_meet_then_the_object_has_its_own():
    alpha = np.zeros((64, 64), np.float32)
    alpha[:, 28:36], alpha[:, 36:] = np.linspace(0.1, 0.9, 8), 1
    front, back = np.array([4.0, 0.2, 0.1], np.float32), np.array([0.05, 0.6, 0.9], np.float32)
    plate = alpha[..., None] * front + (1 - alpha[..., None]) * back
    straight = estimate_foreground(plate, alpha)
    np.testing.assert_allclose(straight[:, 28:], np.broadcast_to(front, (64, 36, 3)), atol=0.06)


def test_estimate_foreground_when_plate_is_not_finite_then_nothing_that_a_comp_multiplies_by_0_is():
    plate = np.full((30, 30, 3), 0.4, np.float32)
    plate[5:7, 5], plate[20, 20], plate[29, 3] = np.nan, np.inf, -np.inf
    alpha = np.full((30, 30), 0.5, np.float32)
    alpha[6], alpha[20:], alpha[29] = 0.999, 0, 1
    straight = estimate_foreground(plate, alpha)
    assert np.isfinite(straight[:29]).all() and np.isinf(straight[29, 3]).all() and (straight[20, 20] == 0).all()
    assert np.isfinite(plate).sum() == plate.size - 12  # the caller's own is not touched


def test_estimate_foreground_when_sizes_differ_then_shape_error():
    with pytest.raises(ShapeError, match="picture is"):
        estimate_foreground(np.zeros((4, 5, 3), np.float32), np.zeros((5, 4), np.float32))
