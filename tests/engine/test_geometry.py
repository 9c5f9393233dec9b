"""Plate to network and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotomem.engine.geometry import ShotGeometry, fit, from_network, to_network
from rotomem.errors import ShapeError, UsageError


@pytest.mark.parametrize(
    ("height", "width", "size", "aspect", "expected"),
    [
        (2160, 3840, 480, 1.0, (480, 853)),
        (1080, 1920, None, 1.0, (1080, 1920)),
        (270, 480, 480, 1.0, (270, 480)),  # never enlarged
        (1080, 914, 480, 2.0, (480, 812)),  # anamorphic: 1828 square pixels wide
        (3840, 2160, 480, 1.0, (853, 480)),  # portrait
        (1, 5000, 480, 1.0, (1, 5000)),
        (100, 100, 480, 0.0, (100, 100)),  # a header without a sensible aspect
    ],
)
def test_fit_keeps_shape_in_square_pixels(height, width, size, aspect, expected):
    assert fit(height, width, size, aspect) == expected


def test_fit_when_picture_is_empty_then_error():
    with pytest.raises(ShapeError):
        fit(0, 10, 480)


def _box_average(x: np.ndarray, new: int) -> np.ndarray:
    """Area average along axis 0 from its definition: the integral over each new pixel."""
    size = x.shape[0]
    edges = np.arange(size + 1)
    integral = np.concatenate([np.zeros((1, *x.shape[1:])), np.cumsum(x, 0)])
    at = np.arange(new + 1) * size / new
    flat = integral.reshape(size + 1, -1)
    cut = np.stack([np.interp(at, edges, flat[:, c]) for c in range(flat.shape[1])], 1)
    return (np.diff(cut, axis=0) / (size / new)).reshape(new, *x.shape[1:])


@pytest.mark.parametrize(("size", "new"), [(10, 5), (10, 3), (7, 5), (97, 31), (64, 63), (5, 1)])
def test_to_network_when_shrinking_then_area_average(size, new):
    x = np.random.default_rng(0).random((size, 4, 3))
    got = to_network(torch.from_numpy(x).float(), new, 4).numpy()
    np.testing.assert_allclose(got, _box_average(x, new), atol=1e-6)
    across = to_network(torch.from_numpy(x.transpose(1, 0, 2).copy()).float(), 4, new).numpy()
    np.testing.assert_allclose(across.transpose(1, 0, 2), _box_average(x, new), atol=1e-6)


def test_to_network_when_half_then_same_as_float():
    x = torch.rand(33, 40, 3, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(to_network(x, 12, 15), to_network(x.float(), 12, 15))


def test_to_network_when_anamorphic_then_only_x_is_stretched():
    x = torch.rand(8, 5, 1, generator=torch.Generator().manual_seed(0))
    h, w = fit(8, 5, None, 2.0)
    assert (h, w) == (8, 10)
    stretched = to_network(x, h, w)
    expected = torch.nn.functional.interpolate(
        x.permute(2, 0, 1)[None], (8, 10), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(stretched, expected[0].permute(1, 2, 0))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.integers(1, 4))
def test_from_network_when_any_sizes_then_still_probabilities(h, w, height, width, objects):
    generator = torch.Generator().manual_seed(h * 41 + w)
    p = torch.softmax(4 * torch.randn(objects + 1, h, w, generator=generator), 0)
    out = from_network(p, height, width)
    assert out.shape == (objects + 1, height, width) and out.dtype == torch.float32
    torch.testing.assert_close(out.sum(0), torch.ones(height, width), atol=2e-6, rtol=0)
    assert out.min() >= 0 and out.max() <= 1 + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0.5, 2.0), st.sampled_from([0, 3]), st.integers(1, 50))
def test_shot_geometry_when_constant_mask_then_constant_alpha(height, width, aspect, rim, size):
    geometry = ShotGeometry.of(height, width, size=size, pixel_aspect=aspect, rim=rim)
    masks = geometry.masks(torch.full((2, height, width), 0.25))
    assert masks.shape == (2, *geometry.network_size)
    alpha = geometry.restore(masks)
    torch.testing.assert_close(alpha, torch.full((2, height, width), 0.25))


def test_shot_geometry_when_rim_then_border_is_replicated_and_cut_off():
    geometry = ShotGeometry.of(6, 8, size=None, rim=2)
    picture = torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(0))
    rimmed = geometry.add_rim(geometry.shrink(picture))
    assert rimmed.shape == (10, 12, 3)
    assert torch.equal(rimmed[0, 2:-2], picture[0]) and torch.equal(rimmed[2:-2, -1], picture[:, -1])
    assert torch.equal(geometry.restore(rimmed.permute(2, 0, 1)), picture.permute(2, 0, 1))


def test_shot_geometry_when_edge_is_shrunk_and_restored_then_it_stays_where_it_was():
    """A half-pixel shift would show here: the centre of mass of a disc comes back to itself."""
    yy, xx = torch.meshgrid(torch.arange(120.0), torch.arange(200.0), indexing="ij")
    disc = (((yy - 50.3) ** 2 + (xx - 77.7) ** 2) < 30**2).float()[None]
    geometry = ShotGeometry.of(120, 200, size=37, pixel_aspect=1.5)
    back = geometry.restore(geometry.masks(disc))[0]
    for axis in (yy, xx):
        before = (axis * disc[0]).sum() / disc.sum()
        after = (axis * back).sum() / back.sum()
        assert abs(float(before - after)) < 0.05


def test_shot_geometry_when_rim_is_absurd_then_usage_error():
    with pytest.raises(UsageError, match="0 to 64"):
        ShotGeometry.of(10, 10, rim=-1)


def test_shot_geometry_when_picture_has_other_size_then_shape_error():
    with pytest.raises(ShapeError, match="canvas is 8x6"):
        ShotGeometry.of(6, 8).shrink(torch.zeros(8, 6, 3))


@pytest.mark.parametrize(("size", "rim"), [(96, 0), (239, 0), (240, 8), (480, 16), (1080, 32)])
def test_geometry_when_the_rim_is_left_to_it_then_larger_pictures_have_a_wider_one(size: int, rim: int) -> None:
    assert ShotGeometry.of(1080, 1920, size=size, rim=None).rim == rim
    assert ShotGeometry.of(1080, 1920, size=size).rim == 0
