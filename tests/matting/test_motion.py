"""Motion of pictures that were moved by known amounts."""

from __future__ import annotations

import numpy as np
import pytest

import rotomem.matting.motion
from rotomem.errors import ShapeError
from rotomem.matting.motion import estimate_motion


def texture(dx: float, dy: float, h: int = 96, w: int = 128) -> np.ndarray:
    """Smooth waves of many directions, moved by (dx, dy)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rng = np.random.default_rng(2)
    out = np.zeros((h, w, 3))
    for _ in range(24):
        fx, fy, phase = rng.normal(0, 0.14), rng.normal(0, 0.14), rng.uniform(0, 6.3, 3)
        out += np.sin((x - dx)[..., None] * fx + (y - dy)[..., None] * fy + phase)
    return (0.5 + out / 24).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("move", ((0.0, 0.0), (0.4, -0.3), (3.0, 2.0), (-9.0, 5.5)))
def test_estimate_motion_when_everything_moves_then_by_that_much(move: tuple[float, float]) -> None:
    motion, known = estimate_motion(texture(0, 0), texture(*move))
    error = np.abs(motion - np.array(move)).max(-1)
    assert motion.shape == (96, 128, 2) and known.mean() > 0.7
    assert np.median(error[known]) < 0.05 and np.quantile(error[known], 0.9) < 0.5


def test_estimate_motion_when_a_picture_is_large_then_pixels_are_still_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rotomem.matting.motion, "WORKING_SIDE", 90)
    motion, known = estimate_motion(texture(0, 0, 181, 200), texture(6, -4, 181, 200))
    assert known.mean() > 0.9
    assert np.abs(np.median(motion[known], axis=0) - (6, -4)).max() < 0.1


def test_estimate_motion_when_the_next_picture_is_another_then_little_is_trusted() -> None:
    other = texture(0, 0)[::-1, ::-1, ::-1]
    _, known = estimate_motion(texture(0, 0), other)
    assert known.mean() < 0.4


def test_estimate_motion_when_sizes_differ_then_shape_error() -> None:
    with pytest.raises(ShapeError, match="pictures"):
        estimate_motion(texture(0, 0), texture(0, 0, 95))
